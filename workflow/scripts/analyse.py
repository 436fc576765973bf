"""Analyse the settings of a study: one tidy CSV per table."""

import json

import xarray as xr

from plasticity.config.models import Statistics
from plasticity.job import Job, start
from plasticity.statistics import summaries, tables
from plasticity.storage import netcdf


def main(job: Job) -> None:
    datasets = {path.stem: netcdf.read(path) for path in job.paths["datasets"]}
    tuning: dict[tuple[str, str], list[xr.Dataset]] = {}
    for path in job.paths["tuned_on"]:
        tuning.setdefault((path.parents[2].name, path.parents[1].name), []).append(
            netcdf.read(path)
        )
    choices = {
        (path.parents[1].name, path.parent.name): json.loads(path.read_text(encoding="utf-8"))
        for path in job.paths["choices"]
    }
    made = tables.tables(datasets, Statistics.of(job.settings)) | {
        "tuning": summaries.tuning(tuning, choices)
    }
    for path in job.paths["tables"]:
        with netcdf.atomic_write(path) as part, netcdf.explained(path):
            made[path.stem].to_csv(part, index=False, float_format="%.6g")


if __name__ == "__main__":
    start(main, __doc__, inputs=["datasets"], outputs=["tables"], optional=["tuned_on", "choices"])
