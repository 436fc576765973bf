"""Prepare a dataset: original files, checked, to one described netCDF file."""

from plasticity import contracts, datasets, jobs, registry
from plasticity.settings import Dataset


def main(job: jobs.Job) -> None:
    name, chosen = job.settings["name"], Dataset.of(job.settings["dataset"])
    source: datasets.Source = registry.build("datasets", chosen.kind, chosen.options)
    contracts.write(datasets.describe(name, source.load(job.path("root")), job.label), job.path("output"))


if __name__ == "__main__":
    jobs.start(main, __doc__, outputs=["output"], others=["root"])
