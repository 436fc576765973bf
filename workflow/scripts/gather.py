"""Gather the ensembles of a setting into one dataset."""

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.statistics import merge
    from plasticity.storage import netcdf

    folders = [job.path("runs") / ensemble for ensemble in job.paths["ensembles"]]
    outcome_paths = job.take([folder / "outcomes.nc" for folder in folders])
    measure_paths = job.take([folder / "measures.nc" for folder in folders])
    outcomes = [netcdf.read(path) for path in outcome_paths]
    measures = [netcdf.read(path) for path in measure_paths]
    treated = [job.path("runs") / ensemble for ensemble in job.paths["treated"]]
    intervention_paths = job.take([folder / "interventions.nc" for folder in treated])
    interventions = [netcdf.read(path) for path in intervention_paths]
    data = merge.merge_ensembles(outcomes, measures)
    data = merge.add_interventions(data, interventions)
    title = "a setting: outcomes and measures of all its runs"
    netcdf.write(data.assign_attrs({"title": title, **job.label}), job.path("output"))


if __name__ == "__main__":
    start(main, __doc__, outputs=["output"], others=["runs", "ensembles", "treated"])
