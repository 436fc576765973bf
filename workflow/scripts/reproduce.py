"""Run a study and compare its tables and datasets with those that were published, in docs/{study}.

    python workflow/scripts/reproduce.py digits

On the same kind of machine every bit must be the same; elsewhere it says which numbers differ, and by how much.
"""

import argparse
import shlex
import subprocess
import sys

import yaml

from plasticity.config import study
from plasticity.errors import StudyError
from plasticity.provenance.code_digest import ROOT
from plasticity.report import publish, reference

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="its name, as its config has it")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="make these results the reference, and lay down their figures",
    )
    given = parser.parse_args()
    results, published = ROOT / "results" / given.study, ROOT / "docs" / given.study
    try:
        config = reference.config_of(given.study)
        if not given.publish:
            reference.same_kind(published)
        options = (
            []
            if config == ROOT / "config.yaml"
            else ["--configfile", str(config.relative_to(ROOT))]
        )
        run = [
            "snakemake",
            "--cores",
            "all",
            "--rerun-incomplete",
            "--quiet",
            "rules",
            "reason",
            *options,
        ]
        if subprocess.run([sys.executable, "-m", *run], cwd=ROOT, check=False).returncode:
            raise StudyError(
                "the study did not come to its end: mend what snakemake says above, and start again"
            )
        if given.publish:
            count = reference.publish(results, published)
            known = study.read(yaml.safe_load(config.read_text(encoding="utf-8")), str(config))
            publish.publish(known, results, published, shlex.join(run))
            print(
                f"{count} tables and datasets are the reference now: commit {published.relative_to(ROOT)}"
            )
        else:
            same, lines = reference.compare(results, published)
            print("\n".join(lines))
            if not same and reference.same_kind(published):
                sys.exit(
                    "on this kind of machine they should be the same: was the code or the config changed? make why, make audit"
                )
    except StudyError as mistake:
        sys.exit(str(mistake))
