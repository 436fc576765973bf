"""List the results of a study that differ from their records, or from this config and this code.

    python workflow/scripts/audit.py [--study mnist] [--adopt | --repair]

Use --repair after results were altered. It moves them, and what was computed from them, to the
folder aside/ of the study, so that the next run computes them again.

Use --adopt after results were copied that do not match. It moves those to the folder aside/ of the
study, so that the next run computes them again. Copied results that match are accepted anyway.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from plasticity.errors import StudyError
from plasticity.provenance import audit, plan, rerun_reasons

Verdict = tuple[Any, Path, list[str]]  # Snakemake job, result, how the result does not match


def print_verdicts(verdicts: list[Verdict]) -> None:
    """Print each result that does not match, and how many results match."""
    matching, affected = 0, 0
    for _, path, faults in verdicts:
        if not faults:
            matching += 1
        elif faults == [audit.OUTDATED_INPUT]:
            affected += 1
        else:
            print(f"{path}: {rerun_reasons.summarize(faults)}")
    summary = f"{len(verdicts)} results, of which {matching} fit this config and this code"
    if affected:
        summary += f", and {affected} with inputs that do not"
    print(summary)


def adopt(dag: Any, verdicts: list[Verdict], outdated_jobs: set[Any]) -> None:
    """Register the outputs of all other jobs with Snakemake, and move those of these jobs away."""
    for job in {job for job, _, _ in verdicts} - outdated_jobs:
        dag.workflow.async_run(dag.workflow.persistence.finished(job))
    move_aside(verdicts, outdated_jobs)
    print(
        "Snakemake now knows the results that match. The others, and all outputs of the same jobs, "
        f"are in the folder {audit.ASIDE}/ of the study."
    )


def register(dag: Any) -> None:
    """Register copied results with Snakemake, so that it knows which of them are outdated.

    Print a sentence if some are unknown.
    """
    count = 0
    examples: dict[Path, list[str]] = {}
    for job in plan.jobs_in_order(dag):
        registration = audit.registration_of(job)
        if registration is None:
            continue
        audit.make_newest(job)
        if registration.is_known:
            dag.workflow.async_run(dag.workflow.persistence.finished(job))
            audit.annotate_metadata(job, registration.changes)
        else:
            count += sum(Path(path).exists() for path in job.output)
            examples |= registration.changes
    if examples:
        path, changes = next(iter(examples.items()))
        print(audit.unknown_message(path, changes, count))


def repair(verdicts: list[Verdict], outdated_jobs: set[Any]) -> None:
    """Move the results that do not match, and all that was computed from them.

    Snakemake computes a missing file again only if something that it leads to is missing as well.
    """
    move_aside(verdicts, outdated_jobs)
    print(
        f"The results of {len(outdated_jobs)} jobs are in the folder {audit.ASIDE}/ of the study. "
        "To compute them again: make run"
    )


def move_aside(verdicts: list[Verdict], jobs: set[Any]) -> None:
    """Move all outputs of some jobs to the folder aside of their study."""
    for job, path, _ in verdicts:
        if job in jobs:
            audit.move_aside(Path(*path.parts[:2]), path)


def main(arguments: argparse.Namespace) -> None:
    os.environ[audit.ALLOWED] = "1"
    with plan.planned(plan.config_settings(arguments), everything=True) as dag:
        if arguments.register:
            register(dag)
            return
        verdicts = list(audit.verdicts(plan.jobs_in_order(dag)))
        print_verdicts(verdicts)
        outdated_jobs = {job for job, _, faults in verdicts if faults}
        if arguments.adopt:
            adopt(dag, verdicts, outdated_jobs)
        elif arguments.repair:
            repair(verdicts, outdated_jobs)
        elif outdated_jobs:
            sys.exit(
                "to compute the others again: make audit ARGS=--repair, then make run; if the "
                "results were copied here: make audit ARGS=--adopt"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan.add_arguments(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--adopt",
        action="store_true",
        help="register the results that match with Snakemake, and move the others aside",
    )
    action.add_argument(
        "--repair",
        action="store_true",
        help="move altered results aside, so that the next run computes them again",
    )
    action.add_argument(
        "--register",
        action="store_true",
        help="register copied results with Snakemake, as each start does; move nothing",
    )
    try:
        main(parser.parse_args())
    except StudyError as error:
        sys.exit(str(error))
