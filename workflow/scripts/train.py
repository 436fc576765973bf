"""Train one cohort through all its tasks: outcomes, and a checkpoint at every task's start."""

from plasticity import checkpoints, contracts, jobs, lockstep, logs, outcomes, training
from plasticity.settings import Setting, arm_name


def main(job: jobs.Job) -> None:
    lockstep.settle()
    method, seeds = job.settings["method"], job.settings["seeds"]
    arms = [arm_name(method, arm) for arm in job.settings["arms"]]
    setting = Setting.of(job.settings["setting"])
    cohort = training.Cohort(setting, method, job.settings["arms"], seeds, contracts.read(job.path("data")))
    tasks = setting.problem.tasks
    with checkpoints.writer(job.path("checkpoints"), cohort.shapes, arms, seeds, tasks, job.stamp) as save:
        values = training.train(cohort, save, logs.progress(f"train {job.path('outcomes').parent}"))
    coordinates = {"arm": arms, "seed": seeds, "task": range(tasks)}
    data = contracts.dataset(outcomes.TABLE, values, coordinates, "outcomes of a cohort", job.stamp)
    contracts.write(outcomes.with_flags(data), job.path("outcomes"))
    if values["status"].any():
        logs.log.warning("%d of %d members diverged; see the variable `status`", values["status"][..., -1].sum(), len(arms) * len(seeds))


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["data", "outcomes", "checkpoints"])
