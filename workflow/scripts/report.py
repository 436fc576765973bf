"""Write the study's report with a second Snakemake process, which reads the finished results."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from plasticity import __version__, log
from plasticity.atomic import atomic_write
from plasticity.errors import StudyError
from plasticity.job import Job, start

SNAKEFILE = Path(__file__).resolve().parents[2] / "Snakefile"
DRAWN_WITH = ("snakemake", "matplotlib", "pandas", "scipy", "statsmodels")


def main(job: Job) -> None:
    config = job.settings | {"quoted": quoted(job)}
    with atomic_write(job.path("output")) as part:
        part.write_text(write_report(config, job.path("stylesheet")))


def quoted(job: Job) -> dict[str, str]:
    """Write all texts that the captions and the first page quote."""
    from plasticity.report import captions, latex
    from plasticity.statistics.table_files import read_table
    from plasticity.storage import netcdf

    trained_with = [
        json.loads(netcdf.open_dataset(path).attrs["versions"]) for path in job.paths["datasets"]
    ]
    drawn_with = {"plasticity": __version__} | {name: version(name) for name in DRAWN_WITH}
    cost = latex.cost(job.path("benchmarks"), latex.ALL_STAGES)
    texts = captions.quoted(job.settings, read_table(job.path("statements")))
    texts["versions"] = captions.versions(trained_with, drawn_with)
    texts["cost"] = captions.format_table(cost)
    return texts


def write_report(config: Mapping[str, object], stylesheet: Path) -> str:
    """Run Snakemake with this config to write its report, and return the HTML.

    Raises:
        StudyError: Snakemake failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config_path, page = Path(scratch, "config.json"), Path(scratch, "report.html")
        config_path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "snakemake", "figures", "tables"]
        command += ["--snakefile", str(SNAKEFILE)]
        command += ["--nolock"]  # the Snakemake that runs this script holds the lock
        command += ["--configfile", str(config_path)]
        command += ["--report", str(page), "--report-stylesheet", str(stylesheet)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        output = process.stdout + process.stderr
        log.log.info("%s", output)
        if process.returncode:
            raise StudyError(
                "Snakemake could not write the report. The log has its output, which ends:"
                f" {output.strip().splitlines()[-1]}"
            )
        return page.read_text()


if __name__ == "__main__":
    start(
        main,
        __doc__,
        inputs=["statements", "datasets", "stylesheet"],
        outputs=["output"],
        others=["benchmarks"],
    )
