"""Gather the cohorts of a setting into one dataset."""

from plasticity import contracts, gathering, jobs


def main(job: jobs.Job) -> None:
    folders = [job.path("runs") / cohort for cohort in job.paths["cohorts"]]
    files = [job.take([folder / f"{name}.nc" for folder in folders]) for name in ("outcomes", "measures")]
    outcomes, measures = ([contracts.read(path) for path in paths] for paths in files)
    data = gathering.gather(outcomes, measures)
    contracts.write(data.assign_attrs({"title": "a setting: outcomes and measures of all its members", **job.label}), job.path("output"))


if __name__ == "__main__":
    jobs.start(main, __doc__, outputs=["output"], others=["runs", "cohorts"])
