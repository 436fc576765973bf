"""Say which results of a study are not what their records say, or not what this config and this code would make.

    python workflow/scripts/audit.py [--configfile studies/mnist.yaml] [--adopt]

With --adopt those that fit become known to Snakemake, and those that do not are laid aside, below the study's folder: after a copy.
"""

import argparse
import os
import sys
from pathlib import Path

from plasticity.errors import StudyError
from plasticity.provenance import audit, plan, rerun_reasons

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="of the study (default: config.yaml)"
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="have Snakemake know the results that fit, and lay the others aside",
    )
    given = parser.parse_args()
    os.environ[audit.ALLOWED] = "1"
    try:
        with plan.planned(given.configfile, everything=True) as dag:
            found = list(audit.verdicts(plan.ordered(dag)))
            for _, path, faults in found:
                if faults and faults != [audit.AFTER]:
                    print(f"{path}: {rerun_reasons.told(faults)}")
            unfit = {job for job, _, faults in found if faults}
            after = sum(faults == [audit.AFTER] for _, _, faults in found)
            also = f", and {after} were made of others that do not" if after else ""
            print(
                f"{len(found)} results, of which {sum(not faults for _, _, faults in found)} fit this config and this code{also}"
            )
            if given.adopt:
                for job in {job for job, _, _ in found} - unfit:
                    dag.workflow.async_run(dag.workflow.persistence.finished(job))
                for path in [path for job, path, _ in found if job in unfit]:
                    audit.lay_aside(Path(*path.parts[:2]), path)
                print(
                    f"what fits is known to Snakemake; what does not, and what was made beside it, lies in the study's {audit.ASIDE}/"
                )
            elif unfit:
                sys.exit(
                    "start snakemake to make the others anew; where they came as a copy, lay them aside first: make audit ARGS=--adopt"
                )
    except StudyError as mistake:
        sys.exit(str(mistake))
