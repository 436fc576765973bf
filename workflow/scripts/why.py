"""Say why each job would run, and what it took the last time: a line each, in the order of the stages. Nothing runs.

python workflow/scripts/why.py [--configfile studies/mnist.yaml] [target …]
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plasticity.errors import StudyError
from plasticity.provenance import plan, rerun_reasons


def own_reasons(job: Any, dag: Any) -> Iterator[str]:
    reason = dag.reason(job)
    yield from (
        f"{Path(path).name} is not there" for path in sorted(map(str, reason.missing_output))
    )
    yield from (
        f"{Path(path).name} was left unfinished"
        for path in sorted(map(str, reason.incomplete_output))
    )
    params = dag.workflow.persistence.params_changed(
        job
    )  # Snakemake does not ask where it knows of another reason
    yield from rerun_reasons.of_params(params.only_old, params.only_new)
    yield from (
        f"{path} is another"
        for path in sorted(map(str, reason.updated_input - reason.updated_input_run))
    )
    if reason.code_changed:
        yield "the rule's command changed"
    if reason.input_changed:
        old, new = (
            set(dag.workflow.persistence.input(job.output[0]) or ()),
            set(map(str, job.input)),
        )
        differ = [f"+ {path}" for path in sorted(new - old)] + [
            f"− {path}" for path in sorted(old - new)
        ]
        yield f"its inputs are others ({rerun_reasons.told(differ)})"
    if reason.software_stack_changed:
        yield "its environment changed"


def why(job: Any, dag: Any) -> str:
    before = sorted({plan.called(other) for other in dag.dependencies[job] if dag.needrun(other)})
    return rerun_reasons.told(list(own_reasons(job, dag))) or "after " + rerun_reasons.told(before)


def seconds(job: Any) -> float | None:
    """What the job took the last time, as its benchmark says."""
    try:
        with Path(job.benchmark).open(encoding="utf-8") as file:
            return float(next(csv.DictReader(file, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, ValueError):
        return None


def say(dag: Any) -> None:
    jobs = [job for job in plan.ordered(dag) if dag.needrun(job)]
    width, costs = (
        max((len(plan.called(job)) for job in jobs), default=0),
        [seconds(job) for job in jobs],
    )
    for job, cost in zip(jobs, costs, strict=True):
        print(
            f"{plan.called(job):{width}}  {'new' if cost is None else f'{cost:.0f} s':>7}  {why(job, dag)}"
        )
    if not jobs:
        print("Nothing would run: every result is what this config and this code make.")
        return
    known = [cost for cost in costs if cost is not None]
    minutes = (
        f"about {sum(known) / 60:.1f} minutes of one core, as they took the last time"
        if known
        else "none of which ran before"
    )
    others = (
        f"; {len(jobs) - len(known)} are new: snakemake --cores 1 cost"
        if known and len(known) < len(jobs)
        else ""
    )
    print(f"{len(jobs)} jobs, {minutes}{others}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="rules or files (default: the whole study)")
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="of the study (default: config.yaml)"
    )
    given = parser.parse_args()
    try:
        with plan.planned(given.configfile, given.targets) as graph:
            say(graph)
    except StudyError as mistake:
        sys.exit(str(mistake))
