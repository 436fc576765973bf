"""Explain why each job would run, and how long it took the last time. Nothing runs.

    python workflow/scripts/why.py [--study mnist] [target …]

There is one line per job, in the order of the stages.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plasticity.errors import StudyError
from plasticity.job import benchmark_file
from plasticity.provenance import plan, rerun_reasons


def explain(job: Any, dag: Any) -> str:
    """Explain why a job would run: its own reasons, or else the jobs on which it depends."""
    reasons = list(find_reasons(job, dag))
    if reasons:
        return rerun_reasons.summarize(reasons)
    earlier = sorted(
        {plan.job_name(other) for other in dag.dependencies[job] if dag.needrun(other)}
    )
    return f"after {rerun_reasons.summarize(earlier)}"


def find_reasons(job: Any, dag: Any) -> Iterator[str]:
    """Yield the reasons for which a job itself would run."""
    reason = dag.reason(job)
    for path in sorted(map(str, reason.missing_output)):
        yield f"{Path(path).name} is missing"
    for path in sorted(map(str, reason.incomplete_output)):
        yield f"{Path(path).name} is incomplete"
    # Snakemake does not compare params if it has found another reason
    params = dag.workflow.persistence.params_changed(job)
    yield from rerun_reasons.describe_changes(params.only_old, params.only_new)
    for path in sorted(map(str, reason.updated_input - reason.updated_input_run)):
        yield f"{path} changed"
    if reason.code_changed:
        yield "the command of the rule changed"
    if reason.input_changed:
        yield f"its list of inputs changed ({describe_inputs(job, dag)})"
    if reason.software_stack_changed:
        yield "its environment changed"


def describe_inputs(job: Any, dag: Any) -> str:
    """Describe which inputs a job no longer has, and which are new."""
    old = set(dag.workflow.persistence.input(job.output[0]) or ())
    new = set(map(str, job.input))
    changes = [f"+ {path}" for path in sorted(new - old)]
    changes += [f"− {path}" for path in sorted(old - new)]
    return rerun_reasons.summarize(changes)


def last_seconds(job: Any) -> float | None:
    """Read from its benchmark how long a job took the last time; None if it never ran."""
    try:
        with benchmark_file(Path(job.log[0])).open(encoding="utf-8") as file:
            return float(next(csv.DictReader(file, delimiter="\t"))["s"])
    except (OSError, IndexError, StopIteration, KeyError, ValueError):
        return None


def print_plan(dag: Any) -> None:
    """Print a line for each job that would run, and the sum of their times."""
    jobs = [job for job in plan.jobs_in_order(dag) if dag.needrun(job)]
    if not jobs:
        print("Nothing would run: every result matches this config and this code.")
        return
    width = max(len(plan.job_name(job)) for job in jobs)
    times = [last_seconds(job) for job in jobs]
    for job, seconds in zip(jobs, times, strict=True):
        time = "new" if seconds is None else f"{seconds:.0f} s"
        print(f"{plan.job_name(job):{width}}  {time:>7}  {explain(job, dag)}")
    known = [seconds for seconds in times if seconds is not None]
    new = len(jobs) - len(known)
    if not known:
        print(f"{len(jobs)} jobs, none of which ran before")
        return
    minutes = sum(known) / 60
    summary = (
        f"{len(jobs)} jobs, about {minutes:.1f} minutes of one core, as they took the last time"
    )
    if new:
        summary += f"; {new} are new: make cost"
    print(summary)


def main(arguments: argparse.Namespace) -> None:
    with plan.planned(plan.config_settings(arguments), arguments.targets) as dag:
        print_plan(dag)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="rules or files (default: the whole study)")
    plan.add_arguments(parser)
    try:
        main(parser.parse_args())
    except StudyError as error:
        sys.exit(str(error))
