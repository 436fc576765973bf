"""Compare results with their records, and with the present config and code. Standard library only.

Snakemake decides what to rerun by its own metadata, which a copy of the results lacks. The records
of the results do not depend on it. So copied results are registered with Snakemake by their
records, see `registration_of`.
"""

import contextlib
import json
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.errors import StudyError
from plasticity.provenance import lineage, rerun_reasons
from plasticity.provenance.param_file import text_of
from plasticity.provenance.record import digest, read, record_path

# while this environment variable is set, the launcher does not register copied results
ALLOWED = "PLASTICITY_AUDIT"
STAGES = ("data", "tuning", "runs", "datasets", "tables", "figures", "checks.txt", "report.html")
ASIDE = "aside"  # folder of a study to which outdated results are moved
OUTDATED_INPUT = "an input does not match"
# rules that take hours: a copied result that differs is not replaced by them without a question
COSTLY_RULES = {
    "train_ensemble",
    "tune_ensemble",
    "lengthen_grid",
    "measure_ensemble",
    "treat_ensemble",
}
# how the names of folders begin that jobs use for themselves
INTERNAL_FOLDERS = ("cache", "resume")


def untracked_results(folder: Path) -> list[Path]:
    """List the results without Snakemake metadata, whose changes Snakemake would not notice.

    Args:
        folder: of a study, relative to the working directory.
    """
    return [path for path in _results(folder) if not _is_tracked(path)]


def _is_tracked(path: Path) -> bool:
    """Answer whether Snakemake has metadata of a result, or a mark that it is incomplete."""
    kinds = ("metadata", "incomplete")
    return any(Path(".snakemake", kind, _key(path)).exists() for kind in kinds)


def mark_cached_incomplete(results: Iterable[Path]) -> list[Path]:
    """Mark results as incomplete if their job has a cache, so that Snakemake plans it again.

    Such jobs ran on a cluster and finished after their launcher had ended. The planned job restores
    the results from its cache if they match the config and the code.

    Args:
        results: from `untracked_results`.

    Returns:
        The other results.
    """
    others = []
    for path in results:
        if not path.parent.joinpath("cache").is_dir():
            others.append(path)
            continue
        mark = Path(".snakemake", "incomplete", _key(path))
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps({"external_jobid": None}), encoding="utf-8")
    return others


class Registration(NamedTuple):
    """What Snakemake is to know about the copied results of a job.

    Attributes:
        is_known: whether they are registered. If not, Snakemake leaves them as they are.
        changes: by result, how it differs from its record, this config, this code or its inputs.
            Snakemake recomputes registered results that differ.
    """

    is_known: bool
    changes: dict[Path, list[str]]


def registration_of(job: Any) -> Registration | None:
    """Decide what Snakemake is to know about the results of a job that it does not know.

    - They equal their records, this config and this code: known.
    - They equal their records, but config, code or an input changed: known and recomputed. If that
      takes hours, unknown.
    - They differ from their records, or have none: unknown.

    Args:
        job: a job of Snakemake.

    Returns:
        None if Snakemake knows all existing results of the job.
    """
    results = [path for path in map(Path, job.output) if path.exists()]
    if all(map(_is_tracked, results)):
        return None
    changes = {}
    for path in results:
        if differences := [*lineage.mismatches(path), *_changes(path, job)]:
            changes[path] = differences
    is_known = all(map(_equals_record, results))
    if changes and job.rule.name in COSTLY_RULES:
        is_known = False
    return Registration(is_known, changes)


def make_newest(job: Any) -> None:
    """Set the time of a job's results to now.

    A copy has arbitrary times. Snakemake would rerun a job whose inputs are newer than its results
    or its benchmark.
    """
    benchmark = [job.benchmark] if job.benchmark else []
    for path in map(Path, [*job.output, *benchmark]):
        with contextlib.suppress(OSError):
            os.utime(path)


def annotate_metadata(job: Any, changes: Mapping[Path, list[str]]) -> None:
    """Change the metadata that Snakemake has just written about the results of a job.

    Args:
        job: a job of Snakemake.
        changes: of its results. If there are any, Snakemake recomputes all, and names the reason.
    """
    reasons = list(dict.fromkeys(reason for reasons in changes.values() for reason in reasons))
    for path in map(Path, job.output):
        location = Path(".snakemake", "metadata", _key(path))
        metadata = json.loads(location.read_text(encoding="utf-8"))
        # nobody knows which environment of conda computed them
        metadata["software_stack_hash"] = None
        if reasons:
            metadata["params"] = [*metadata["params"], repr(rerun_reasons.summarize(reasons))]
        location.write_text(json.dumps(metadata), encoding="utf-8")


def unknown_message(path: Path, changes: list[str], count: int) -> str:
    """Explain what happens with copied results that are unknown.

    Args:
        path: of one of them.
        changes: how it differs.
        count: of all unknown results.
    """
    change = rerun_reasons.summarize(changes)
    return (
        f"{count} copied results do not match this config and this code, such as {path}: {change}. "
        "They are used as they are, and are not recomputed. List them: make audit. Move them away, "
        "to compute them again: make audit ARGS=--adopt"
    )


def check_known(jobs: Iterable[Any], folder: Path) -> None:
    """Check that no job that takes hours reads or replaces unknown results.

    Args:
        jobs: Snakemake jobs that are about to run.
        folder: of the study.

    Raises:
        StudyError: with the first such job.
    """
    unknown = set(map(str, untracked_results(folder)))
    if not unknown:
        return
    for job in jobs:
        files = unknown.intersection(map(str, [*job.output, *job.input]))
        if files and job.rule.name in COSTLY_RULES:
            name = f"{job.rule.name} {'/'.join(job.wildcards)}"
            raise StudyError(
                f"{name} would read or replace {min(files)}, which was copied and does not match "
                "this config and this code. Nothing was started. Move such results away: make "
                "audit ARGS=--adopt. Then start again."
            )


def _equals_record(path: Path) -> bool:
    """Check whether a result has a record, and is the file that the record describes."""
    record = read(path)
    return record is not None and path.is_file() and digest(path) == record.sha256


def verdicts(jobs: Iterable[Any]) -> Iterator[tuple[Any, Path, list[str]]]:
    """Compare the existing results of jobs with their records, the config and the code.

    Args:
        jobs: Snakemake jobs, each after the jobs on which it depends, as from
            `plan.jobs_in_order`.

    Yields:
        Job, result, and how the result does not match. If only an input does not match, this is
        `OUTDATED_INPUT`.
    """
    outdated: set[str] = set()
    for job in jobs:
        faults: dict[Path, list[str]] = {}
        for path in map(Path, job.output):
            if path.exists():
                faults[path] = [*lineage.mismatches(path), *_changes(path, job)]
        if not outdated.isdisjoint(map(str, job.input)):
            for path in faults:
                faults[path] = faults[path] or [OUTDATED_INPUT]
        if any(faults.values()):
            outdated.update(map(str, job.output))
        for path in faults:
            yield job, path, faults[path]


def move_aside(folder: Path, path: Path) -> None:
    """Move a result and its record to the folder `aside` of the study.

    They replace what was moved there before. A result may be a folder by mistake.

    Args:
        folder: of the study.
        path: of the result.
    """
    target = folder / ASIDE / path.relative_to(folder)
    moves = [(path, target), (record_path(path), target.with_name(f"{target.name}.json"))]
    for old, new in moves:
        if old and old.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            if new.is_dir():
                shutil.rmtree(new)
            elif old.is_dir():
                new.unlink(missing_ok=True)
            old.replace(new)


def _changes(path: Path, job: Any) -> list[str]:
    """List what changed in the config and the code since a result was computed."""
    record = read(path)
    if record is None:
        return [
            "has no provenance record: another program or an older version of this code wrote it"
        ]
    then = {"settings": record.settings, "code": record.code}
    now = {
        "settings": json.loads(text_of(getattr(job.params, "settings", "{}"))),
        "code": json.loads(text_of(job.params.code)),
    }
    changed = [key for key in now if then[key] != now[key]]
    return rerun_reasons.describe_changes(
        {repr(json.dumps(then[key], sort_keys=True)) for key in changed},
        {repr(json.dumps(now[key], sort_keys=True)) for key in changed},
    )


def _results(folder: Path) -> Iterator[Path]:
    """Yield the result files of all stages, without unfinished files and internal folders."""
    for stage in STAGES:
        if (folder / stage).is_file():
            yield folder / stage
        for parent, folders, files in os.walk(folder / stage):
            folders[:] = sorted(name for name in folders if not name.startswith(INTERNAL_FOLDERS))
            yield from (Path(parent, file) for file in sorted(files) if not file.endswith(".part"))


def _key(path: Path) -> Path:
    """Return the path of Snakemake's metadata of an output, as Snakemake computes it."""
    key = urlsafe_b64encode(str(path).encode()).decode()
    *folders, file = (key[start : start + 254] for start in range(0, len(key), 254))
    return Path(*(f"@{folder}" for folder in folders), file)
