"""Say what a study will cost: jobs, members, steps, checkpoints, disk and memory, counted; time, from an epoch of each on this machine."""

from plasticity import contracts, costs, jobs, lockstep
from plasticity.settings import Curvature, Setting, Training


def main(job: jobs.Job) -> None:
    lockstep.settle()
    datasets = {path.stem: contracts.read(path) for path in job.paths["data"]}
    training, curvature = Training(**job.settings["training"]), Curvature(**job.settings["curvature"])
    found = {}
    for name, values in job.settings["settings"].items():
        setting = Setting.of(values)
        for method, members in job.settings["members"][name].items():
            data = datasets[setting.problem.dataset]
            found[name, method] = costs.cost(setting, method, members["arms"], members["blocks"], data, training, curvature)
    print(costs.table(found))
    print("Time is that of one core of this machine, or of its GPU, all jobs together; a job needs about 0.7 GB of memory besides.")


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["data"])
