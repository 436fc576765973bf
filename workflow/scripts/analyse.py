"""Analyse the settings of a study: one tidy CSV per table."""

import json

import xarray as xr

from plasticity import contracts, jobs
from plasticity.settings import Statistics
from plasticity.statistics import summaries, tables


def main(job: jobs.Job) -> None:
    datasets = {path.stem: contracts.read(path) for path in job.paths["datasets"]}
    tuning: dict[tuple[str, str], list[xr.Dataset]] = {}
    for path in job.paths["tuned_on"]:
        tuning.setdefault((path.parents[2].name, path.parents[1].name), []).append(contracts.read(path))
    choices = {(path.parents[1].name, path.parent.name): json.loads(path.read_text(encoding="utf-8")) for path in job.paths["choices"]}
    made = tables.tables(datasets, Statistics.of(job.settings)) | {"tuning": summaries.tuning(tuning, choices)}
    for path in job.paths["tables"]:
        with contracts.whole(path) as part, contracts.explained(path):
            made[path.stem].to_csv(part, index=False, float_format="%.6g")


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["datasets"], outputs=["tables"], optional=["tuned_on", "choices"])
