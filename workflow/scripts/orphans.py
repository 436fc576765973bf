"""List the unfinished Slurm jobs of this folder, which outlive a killed launcher; cancel them."""

import argparse
import sys
from pathlib import Path

from plasticity import slurm
from plasticity.errors import StudyError


def main(arguments: argparse.Namespace) -> None:
    folder = Path.cwd()
    jobs = slurm.unfinished_jobs(folder)
    for job in jobs:
        print(f"{job.number}  {job.state:10}  {job.comment}")
    summary = f"{len(jobs)} unfinished jobs of {folder}"
    if arguments.cancel and jobs:
        slurm.cancel(jobs)
        summary += ", now cancelled"
    print(summary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancel", action="store_true", help="cancel them")
    try:
        main(parser.parse_args())
    except StudyError as error:
        sys.exit(str(error))
