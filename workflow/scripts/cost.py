"""Say what a study will cost: jobs, runs, steps, disk and memory are counted; times are those of some steps on this machine."""

from plasticity import cost as costs
from plasticity.config.models import Curvature, Setting, Training
from plasticity.job import Job, start
from plasticity.models import ensemble
from plasticity.storage import netcdf


def main(job: Job) -> None:
    ensemble.make_deterministic()
    datasets = {path.stem: netcdf.read(path) for path in job.paths["data"]}
    training, curvature = (
        Training(**job.settings["training"]),
        Curvature.of(job.settings["curvature"]),
    )
    found: dict[tuple[str, str], costs.Cost] = {}
    measured: dict[str, costs.Measuring] = {}
    for runs in job.settings["runs"]:
        setting, method = Setting.of(runs["setting"]), runs["method"]
        data, same = (
            datasets[setting.problem.dataset],
            str(setting),
        )  # a method may have a network of its own
        measured[same] = measured.get(same) or costs.measuring(setting, data, curvature)
        cost = costs.cost(
            setting, method, runs["arms"], runs["blocks"], data, training, curvature, measured[same]
        )
        label, cost = (
            (f"{method} tuning", costs.unmeasured(cost)) if runs["tuning"] else (method, cost)
        )
        found[runs["name"], label] = cost
    print(costs.table(found))
    print(
        "Time is that of one core of this machine, or of its GPU, all jobs together; a job needs about 0.7 GB of memory besides."
    )


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"])
