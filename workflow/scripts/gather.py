"""Gather the ensembles of a setting into one dataset."""

from plasticity.job import Job, start
from plasticity.statistics import merge
from plasticity.storage import netcdf


def main(job: Job) -> None:
    folders = [job.path("runs") / ensemble for ensemble in job.paths["ensembles"]]
    files = [
        job.take([folder / f"{name}.nc" for folder in folders]) for name in ("outcomes", "measures")
    ]
    outcomes, measures = ([netcdf.read(path) for path in paths] for paths in files)
    data = merge.gather(outcomes, measures)
    netcdf.write(
        data.assign_attrs(
            {"title": "a setting: outcomes and measures of all its runs", **job.label}
        ),
        job.path("output"),
    )


if __name__ == "__main__":
    start(main, __doc__, outputs=["output"], others=["runs", "ensembles"])
