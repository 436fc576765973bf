"""Prepare a dataset: original files, checked, to one described netCDF file."""

from plasticity import contracts, datasets, jobs, registry


def main(job: jobs.Job) -> None:
    name = job.settings["dataset"]
    source = registry.load("datasets", name)
    images, labels = source.load(job.path("root"))
    contracts.write(datasets.describe(name, images, labels, source.MAXIMUM, job.stamp), job.path("output"))


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["root", "output"])
