"""Write the tables of a paper (settings, methods and cost) as CSV and in LaTeX."""

import json

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.report import latex
    from plasticity.statistics.table_files import read_table
    from plasticity.storage import netcdf

    results = {path.stem: read_table(path) for path in job.paths["tables"]}
    job_settings = {
        path.stem: json.loads(netcdf.open_dataset(path).attrs["settings"])
        for path in job.paths["datasets"]
    }
    tables = {
        "settings": latex.settings(job_settings),
        "methods": latex.methods(results["outcomes"], results["comparisons"]),
        "cost": latex.cost(job.path("benchmarks")),
    }
    for path, text in latex.file_contents(tables, job.paths["outputs"]).items():
        with atomic_write(path) as part, explain_write_errors(path):
            part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    start(main, __doc__, inputs=["tables", "datasets"], outputs=["outputs"], others=["benchmarks"])
