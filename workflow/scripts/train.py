"""Train one cohort through all its tasks: outcomes, and checkpoints at tasks' starts. A job that was killed goes on from its last task."""

import itertools

from plasticity import checkpoints, cohort, contracts, jobs, lockstep, logs, networks, outcomes, resume
from plasticity.settings import Setting, Training, arm_name


def main(job: jobs.Job) -> None:
    lockstep.settle()
    setting, training = Setting.of(job.settings["setting"]), Training(**job.settings["training"])
    method, seeds = job.settings["method"], job.settings["seeds"]
    arms = [arm_name(method, arm) for arm in job.settings["arms"]]
    everyone = list(itertools.product(job.settings["arms"], seeds))
    data = contracts.read(job.path("data"))
    shapes = {name: tuple(tensor.shape) for name, tensor in networks.fitting(setting, data).named_parameters()}
    tasks = range(0, setting.problem.tasks, training.checkpoint_every)

    with resume.held(job.path("outcomes").parent / "resume", job.stamp | {"data": resume.digest(job.path("data"))}) as kept:
        rows = checkpoints.Rows(kept.folder / "checkpoints.f4", tasks, len(everyone), shapes)
        values = cohort.train_in_waves(setting, method, everyone, data, training, rows, kept, job.memory)
        checkpoints.write(job.path("checkpoints"), rows, arms, seeds, job.stamp)
        coordinates = {
            "arm": arms,
            "seed": seeds,
            "task": range(setting.problem.tasks),
            "step": outcomes.curve_steps(setting.problem, training),
        }
        split = {name: array.reshape(len(arms), len(seeds), *array.shape[1:]) for name, array in values.items()}
        described = contracts.dataset(outcomes.TABLE, split, coordinates, "outcomes of a cohort", job.stamp)
        contracts.write(outcomes.with_flags(described), job.path("outcomes"))
    if diverged := int(values["status"][:, -1].sum()):
        logs.log.warning("%d of %d members diverged; see the variable `status`", diverged, len(everyone))


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["data", "outcomes", "checkpoints"])
