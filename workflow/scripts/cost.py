"""Estimate what a study costs: count jobs, disk and memory, and time some steps on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plasticity.job import Job, start

if TYPE_CHECKING:
    import xarray as xr

    from plasticity import cost as costs


def main(job: Job) -> None:
    from plasticity import cost as costs
    from plasticity.models import ensemble
    from plasticity.storage import netcdf

    ensemble.make_deterministic()
    datasets = {path.stem: netcdf.read(path) for path in job.paths["data"]}
    print(costs.table(estimate(job, datasets)))
    print(
        "Times are hours of one core of this machine, or of its GPU, for all jobs together.\n"
        "A job needs about 0.7 GB of memory in addition."
    )


def estimate(job: Job, datasets: dict[str, xr.Dataset]) -> dict[tuple[str, str], costs.Cost]:
    """Estimate the cost of each setting and method."""
    from plasticity import cost as costs
    from plasticity.config.models import Curvature, Setting, Training

    training = Training(**job.settings["training"])
    curvature = Curvature.of(job.settings["curvature"])
    estimates: dict[tuple[str, str], costs.Cost] = {}
    # by setting, because a method may have its own network
    checkpoints: dict[str, costs.CheckpointCost] = {}
    copies: dict[str, costs.CheckpointCost] = {}
    for runs in job.settings["runs"]:
        setting = Setting.of(runs["setting"])
        data = datasets[setting.problem.dataset]
        if str(setting) not in checkpoints:
            checkpoints[str(setting)] = costs.time_checkpoint(setting, data, curvature)
        label = runs["method"]
        cost = costs.cost(
            setting,
            runs["method"],
            runs["arms"],
            runs["blocks"],
            data,
            training,
            curvature,
            checkpoints[str(setting)],
        )
        if runs["tuning"]:
            label = f"{label} tuning"
            cost = costs.without_checkpoints(cost)
        if "experiment" in runs:
            experiment = costs.Experiment(**runs["experiment"])
            if str(setting) not in copies:
                of_copies = Curvature.of(job.settings["curvature_of_copies"])
                copies[str(setting)] = costs.time_copy(setting, data, of_copies)
            cost = costs.with_interventions(
                cost,
                experiment,
                copies[str(setting)],
                setting,
                runs["method"],
                runs["arms"][0],
                data,
            )
        estimates[runs["name"], label] = cost
    return estimates


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"])
