"""Analyse the settings of a study: one tidy CSV file per table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.job import Job, start

if TYPE_CHECKING:
    import xarray as xr

# of spectra and learning curves, which are in no table and take most of the memory
UNUSED_DIMS = ("rank", "grid", "step")


def main(job: Job) -> None:
    from plasticity.config.models import Statistics
    from plasticity.statistics import summaries, tables
    from plasticity.storage import netcdf

    datasets = {path.stem: netcdf.read(path, UNUSED_DIMS) for path in job.paths["datasets"]}
    tables_by_name = tables.build_tables(datasets, Statistics.of(job.settings))
    tables_by_name["tuning"] = summaries.tuning(*read_tuning(job))
    for path in job.paths["tables"]:
        table = tables_by_name[path.stem]
        with atomic_write(path) as part, explain_write_errors(path):
            table.to_csv(part, index=False, float_format="%.6g")


def read_tuning(
    job: Job,
) -> tuple[dict[tuple[str, str], list[xr.Dataset]], dict[tuple[str, str], dict[str, object]]]:
    """Read the outcomes on the tuning seeds and the choices, by setting and method."""
    from plasticity.storage import netcdf

    outcomes: dict[tuple[str, str], list[xr.Dataset]] = {}
    for path in job.paths["tuned_on"]:  # tuning/{setting}/{method}/{seeds}/outcomes.nc
        setting, method = path.parents[2].name, path.parents[1].name
        outcomes.setdefault((setting, method), []).append(netcdf.read(path))
    choices = {}
    for path in job.paths["choices"]:  # tuning/{setting}/{method}/choice.json
        setting, method = path.parents[1].name, path.parent.name
        choices[setting, method] = json.loads(path.read_text(encoding="utf-8"))
    return outcomes, choices


if __name__ == "__main__":
    start(main, __doc__, inputs=["datasets"], outputs=["tables"], optional=["tuned_on", "choices"])
