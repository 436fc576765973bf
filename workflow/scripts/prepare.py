"""Prepare a dataset: check the original files, and write one described netCDF file."""

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config import registry
    from plasticity.config.models import Dataset
    from plasticity.data import dataset
    from plasticity.storage import netcdf

    config = Dataset.of(job.settings["dataset"])
    source: dataset.Source = registry.build("datasets", config.kind, config.options)
    images = source.load(job.path("root"))
    netcdf.write(dataset.describe(job.settings["name"], images, job.label), job.path("output"))


if __name__ == "__main__":
    start(main, __doc__, outputs=["output"], others=["root"])
