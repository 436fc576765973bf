"""List the Slurm jobs of this folder that still run, which a launcher that was killed leaves behind; cancel them if asked."""

import argparse
import sys
from pathlib import Path

from plasticity import slurm
from plasticity.errors import StudyError

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancel", action="store_true", help="cancel them")
    given = parser.parse_args()
    try:
        found = slurm.running(ROOT)
        for job in found:
            print(f"{job.number}  {job.state:10}  {job.comment}")
        if cancelled := given.cancel and bool(found):
            slurm.cancel(found)
        print(
            f"{len(found)} jobs of {ROOT} wait or run"
            + (", and are cancelled" if cancelled else "")
        )
    except StudyError as mistake:
        sys.exit(str(mistake))
