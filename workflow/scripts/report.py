"""Write the study's report: Snakemake's own, by a second Snakemake that only looks at what the first has made."""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from plasticity import captions, contracts, jobs, logs, statistics
from plasticity.errors import StudyError

DRAWN_WITH = ("snakemake", "matplotlib", "pandas", "scipy", "statsmodels")


def main(job: jobs.Job) -> None:
    versions = {json.dumps(json.loads(contracts.look(path).attrs["versions"]), indent=0).strip("{}\n") for path in job.paths["datasets"]}
    about = {
        "Study": job.settings["study"],
        "Trained and measured with": sorted(versions),
        "Tested and drawn with": [f"{name} {version(name)}" for name in DRAWN_WITH],
    }
    with contracts.whole(job.path("output")) as part, tempfile.TemporaryDirectory() as scratch:
        config, page, metadata = (Path(scratch, name) for name in ("config.json", "report.html", "about.json"))
        said = captions.said(job.settings, statistics.read_table(job.path("statements")))
        config.write_text(json.dumps(job.settings | {"said": said}))
        metadata.write_text(json.dumps(about))
        # the first Snakemake holds the lock, and waits for this one
        options = ["--nolock", "--configfile", str(config), "--report", str(page), "--report-metadata", str(metadata)]
        made = subprocess.run(
            [sys.executable, "-m", "snakemake", "figures", "tables", *options], capture_output=True, text=True, check=False
        )
        logs.log.info("%s", made.stdout + made.stderr)
        if made.returncode:
            raise StudyError(f"Snakemake could not write the report: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        part.write_text(page.read_text())


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["statements", "datasets", "output"])
