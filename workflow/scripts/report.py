"""Write the study's report: Snakemake's own, by a second Snakemake that only looks at what the first has made."""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from plasticity import log
from plasticity.errors import StudyError
from plasticity.job import Job, start
from plasticity.report import captions, latex
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

DRAWN_WITH = ("snakemake", "matplotlib", "pandas", "scipy", "statsmodels")


def main(job: Job) -> None:
    made_with = [
        json.loads(netcdf.open_dataset(path).attrs["versions"]) for path in job.paths["datasets"]
    ]
    cost = latex.cost(job.path("benchmarks"), latex.ALL_STAGES)
    drawn_with = {name: version(name) for name in DRAWN_WITH}
    with netcdf.atomic_write(job.path("output")) as part, tempfile.TemporaryDirectory() as scratch:
        config, page = Path(scratch, "config.json"), Path(scratch, "report.html")
        said = captions.said(job.settings, read_table(job.path("statements")))
        said |= {"versions": captions.versions(made_with, drawn_with), "cost": captions.table(cost)}
        config.write_text(json.dumps(job.settings | {"said": said}))
        # the first Snakemake holds the lock, and waits for this one
        options = [
            "--nolock",
            "--configfile",
            str(config),
            "--report",
            str(page),
            "--report-stylesheet",
            str(job.path("stylesheet")),
        ]
        made = subprocess.run(
            [sys.executable, "-m", "snakemake", "figures", "tables", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        log.log.info("%s", made.stdout + made.stderr)
        if made.returncode:
            raise StudyError(
                f"Snakemake could not write the report: {(made.stdout + made.stderr).strip().splitlines()[-1]}"
            )
        part.write_text(page.read_text())


if __name__ == "__main__":
    start(
        main,
        __doc__,
        inputs=["statements", "datasets", "stylesheet"],
        outputs=["output"],
        others=["benchmarks"],
    )
