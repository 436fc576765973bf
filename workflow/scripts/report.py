"""Write the study's report: Snakemake's own, by a second Snakemake that only looks at what the first has made."""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from plasticity import captions, contracts, jobs, logs, statistics, typesetting
from plasticity.errors import StudyError

DRAWN_WITH = ("snakemake", "matplotlib", "pandas", "scipy", "statsmodels")


def main(job: jobs.Job) -> None:
    made_with = [json.loads(contracts.look(path).attrs["versions"]) for path in job.paths["datasets"]]
    cost = typesetting.cost(job.path("benchmarks"), typesetting.ALL_STAGES)
    drawn_with = {name: version(name) for name in DRAWN_WITH}
    with contracts.whole(job.path("output")) as part, tempfile.TemporaryDirectory() as scratch:
        config, page = Path(scratch, "config.json"), Path(scratch, "report.html")
        said = captions.said(job.settings, statistics.read_table(job.path("statements")))
        said |= {"versions": captions.versions(made_with, drawn_with), "cost": captions.table(cost)}
        config.write_text(json.dumps(job.settings | {"said": said}))
        # the first Snakemake holds the lock, and waits for this one
        options = ["--nolock", "--configfile", str(config), "--report", str(page), "--report-stylesheet", str(job.path("stylesheet"))]
        made = subprocess.run(
            [sys.executable, "-m", "snakemake", "figures", "tables", *options], capture_output=True, text=True, check=False
        )
        logs.log.info("%s", made.stdout + made.stderr)
        if made.returncode:
            raise StudyError(f"Snakemake could not write the report: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        part.write_text(page.read_text())


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["statements", "datasets", "stylesheet"], outputs=["output"], others=["benchmarks"])
