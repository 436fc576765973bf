"""Gather the cohorts of a setting into one dataset."""

from plasticity import contracts, gathering, jobs


def main(job: jobs.Job) -> None:
    folders = [job.path("runs") / cohort for cohort in job.paths["cohorts"]]
    outcomes, measures = ([contracts.read(folder / f"{name}.nc") for folder in folders] for name in ("outcomes", "measures"))
    data = gathering.gather(outcomes, measures)
    contracts.write(data.assign_attrs({"title": "a setting: outcomes and measures of all its members", **job.stamp}), job.path("output"))


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["runs", "cohorts", "output"])
