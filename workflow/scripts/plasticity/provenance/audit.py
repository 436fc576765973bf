"""Compare results with their records, and with the present config and code. Standard library only.

Snakemake decides what to rerun by its own metadata, which a copy of the results lacks. The records
of the results do not depend on it.
"""

import json
import os
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plasticity.provenance import lineage, rerun_reasons
from plasticity.provenance.record import read, record_path

# while this environment variable is set, the launcher accepts results without metadata
ALLOWED = "PLASTICITY_AUDIT"
STAGES = ("data", "tuning", "runs", "datasets", "tables", "figures", "checks.txt", "report.html")
ASIDE = "aside"  # folder of a study to which outdated results are moved
OUTDATED_INPUT = "an input does not match"
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


def untracked_message(results: list[Path]) -> str:
    """Explain why nothing starts while there are results without Snakemake metadata."""
    return (
        f"{len(results)} results, such as {results[0]}, came without Snakemake's metadata, so "
        "Snakemake cannot tell whether they are outdated. They were copied, or .snakemake was "
        "removed. Keep the results that match this config and code, and move the others away: "
        "make audit ARGS=--adopt"
    )


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
        "settings": json.loads(getattr(job.params, "settings", "{}")),
        "code": json.loads(job.params.code),
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
