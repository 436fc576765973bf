"""Whether results are what their records say, and what the config and the code would make now. Standard library only: the launcher asks."""

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plasticity.provenance import lineage, rerun_reasons
from plasticity.provenance.code_digest import ROOT
from plasticity.provenance.record import place, read

ALLOWED = "PLASTICITY_AUDIT"  # while it is set, results that Snakemake does not know are no mistake: they are being looked at
STAGES = ("data", "tuning", "runs", "datasets", "tables", "figures", "checks.txt", "report.html")
ASIDE = "aside"  # below a study's results, where those lie that do not fit
AFTER = "was made of a result that does not fit"


def unknown(folder: Path) -> list[Path]:
    """Results of which Snakemake has neither a record nor a mark that they are unfinished: it would never see that they are outdated.

    Args:
        folder: of a study, relative to the repository.
    """
    return [
        path
        for path in _results(folder)
        if not any(
            (ROOT / ".snakemake" / kind / _key(path)).exists()
            for kind in ("metadata", "incomplete")
        )
    ]


def set_off_again(results: Iterable[Path]) -> list[Path]:
    """Mark results that a job on a cluster finished, though no launcher lived to see it, as unfinished.

    So the job is planned again, and takes back what it kept, if it is what the config and the code would make.

    Args:
        results: as `unknown` gives them.

    Returns:
        the others, which no such job made.
    """
    others = []
    for path in results:
        if (ROOT / path).parent.joinpath("kept").is_dir():
            mark = ROOT / ".snakemake" / "incomplete" / _key(path)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps({"external_jobid": None}), encoding="utf-8")
        else:
            others.append(path)
    return others


def refusal(results: list[Path]) -> str:
    """What to say of results that Snakemake does not know."""
    return (
        f"{len(results)} results, such as {results[0]}, came without Snakemake's records of them (they are a copy, or .snakemake was "
        "removed), so it could not see what a change concerns. Keep those that this config and this code make, and lay the others aside: "
        "make audit ARGS=--adopt"
    )


def verdicts(jobs: Iterable[Any]) -> Iterator[tuple[Any, Path, list[str]]]:
    """Each result that is there, with its job and with what speaks against it, be it only `AFTER`.

    Args:
        jobs: of Snakemake, as `plans.ordered` gives them.
    """
    unfit: set[str] = set()
    for job in jobs:
        there = [path for path in map(Path, job.output) if path.exists()]
        after = [] if unfit.isdisjoint(map(str, job.input)) else [AFTER]
        found = {path: [*lineage.faults(path), *_outdated(path, job)] or after for path in there}
        if any(found.values()):
            unfit.update(map(str, job.output))
        yield from ((job, path, faults) for path, faults in found.items())


def lay_aside(folder: Path, path: Path) -> Path:
    """Move a result out of the way, with its record."""
    aside = folder / ASIDE / path.relative_to(folder)
    record = place(path)
    for old, new in ((path, aside), (record, aside.with_name(f"{aside.name}.json"))):
        if old and old.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.replace(new)
    return aside


def _outdated(path: Path, job: Any) -> list[str]:
    """What of the config and the code is another now than when a result was made."""
    record = read(path)
    if record is None:
        return [
            "has no record of how it was made: an older version of this repository, or another program, made it"
        ]
    now = {
        "settings": json.loads(getattr(job.params, "settings", "{}")),
        "code": json.loads(job.params.code),
    }
    then = {"settings": record.settings, "code": record.code}
    return rerun_reasons.of_params(
        *(
            {repr(json.dumps(values[key], sort_keys=True)) for key in now if then[key] != now[key]}
            for values in (then, now)
        )
    )


def _results(folder: Path) -> Iterator[Path]:
    """Files of the stages, but what is being written and what jobs keep for themselves."""
    for stage in STAGES:
        if (folder / stage).is_file():
            yield folder / stage
        for top, folders, files in os.walk(folder / stage):
            folders[:] = sorted(set(folders) - {"kept", "resume", "resume_curvature"})
            yield from (Path(top, file) for file in sorted(files) if not file.endswith(".part"))


def _key(path: Path) -> Path:
    """Where Snakemake files what it knows of an output, below a folder of its own."""
    key = urlsafe_b64encode(str(path).encode()).decode()
    *folders, file = (key[first : first + 254] for first in range(0, len(key), 254))
    return Path(*(f"@{folder}" for folder in folders), file)
