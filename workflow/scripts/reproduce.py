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
from plasticity.report import publish
from plasticity.report.reference import compare, config_of, publish, same_kind

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="its name, as its config has it")
    parser.add_argument("--publish", action="store_true", help="make these results the reference, and lay down their figures")
    given = parser.parse_args()
    results, reference = ROOT / "results" / given.study, ROOT / "docs" / given.study
    try:
        config = config_of(given.study)
        if not given.publish:
            same_kind(reference)
        options = [] if config == ROOT / "config.yaml" else ["--configfile", str(config.relative_to(ROOT))]
        run = ["snakemake", "--cores", "all", "--rerun-incomplete", "--quiet", "rules", "reason", *options]
        if subprocess.run([sys.executable, "-m", *run], cwd=ROOT, check=False).returncode:
            raise StudyError("the study did not come to its end: mend what snakemake says above, and start again")
        if given.publish:
            count = publish(results, reference)
            known = study.read(
                yaml.safe_load(config.read_text(encoding="utf-8")), ROOT / "workflow/schemas/config.schema.yaml", str(config)
            )
            publish.publish(known, results, reference, shlex.join(run))
            print(f"{count} tables and datasets are the reference now: commit {reference.relative_to(ROOT)}")
        else:
            same, lines = compare(results, reference)
            print("\n".join(lines))
            if not same and same_kind(reference):
                sys.exit("on this kind of machine they should be the same: was the code or the config changed? make why, make audit")
    except StudyError as mistake:
        sys.exit(str(mistake))
