"""Prepare a dataset: original files, checked, to one described netCDF file."""

from plasticity.config import registry
from plasticity.config.models import Dataset
from plasticity.data import dataset
from plasticity.job import Job, start
from plasticity.storage import netcdf


def main(job: Job) -> None:
    name, chosen = job.settings["name"], Dataset.of(job.settings["dataset"])
    source: dataset.Source = registry.build("datasets", chosen.kind, chosen.options)
    netcdf.write(
        dataset.describe(name, source.load(job.path("root")), job.label), job.path("output")
    )


if __name__ == "__main__":
    start(main, __doc__, outputs=["output"], others=["root"])
