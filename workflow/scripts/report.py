"""Write the study's report: one HTML file with sentences, figures, captions and tables."""

import json
from importlib.metadata import version

from plasticity import __version__
from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.job import Job, start

DRAWN_WITH = ("snakemake", "matplotlib", "pandas", "scipy", "statsmodels")


def main(job: Job) -> None:
    from plasticity.report import captions, document
    from plasticity.statistics.table_files import read_table
    from plasticity.storage import netcdf

    trained_with = [
        json.loads(netcdf.open_dataset(path).attrs["versions"]) for path in job.paths["datasets"]
    ]
    drawn_with = {"plasticity": __version__} | {name: version(name) for name in DRAWN_WITH}
    results = document.Results(
        config=job.settings["config"],
        figures=job.paths["figures"],
        tables={path.stem: read_table(path) for path in job.paths["tables"]},
        other_tables=job.settings["other_tables"],
        captions=job.paths["captions"],
        drawn=job.settings["drawn"],
        versions=captions.versions(trained_with, drawn_with),
    )
    template = job.path("template").read_text(encoding="utf-8")
    stylesheet = job.path("stylesheet").read_text(encoding="utf-8")
    path = job.path("output")
    with atomic_write(path) as part, explain_write_errors(path):
        part.write_text(document.document(results, template, stylesheet), encoding="utf-8")


if __name__ == "__main__":
    start(
        main,
        __doc__,
        inputs=["figures", "tables", "captions", "datasets", "template", "stylesheet"],
        outputs=["output"],
    )
