"""Train one cohort through all its tasks: outcomes, and checkpoints at tasks' starts. A job that was killed goes on from its last task."""

import json

from plasticity import checkpoints, cohort, contracts, jobs, lockstep, resume
from plasticity.kept import kept
from plasticity.settings import arm_name


def main(job: jobs.Job) -> None:
    lockstep.settle()
    method, results = job.settings["method"], [job.path("outcomes"), job.path("checkpoints")]
    folder = results[0].parent
    arm = json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"] if job.paths["choice"] else None
    if arm is None:
        arms = {arm_name(method, arm): arm for arm in job.settings["arms"]}
    else:
        job, arms = job.knowing(arms=[arm]), {method: arm}
    before = kept(folder, arm, job.label, results)
    with resume.held(folder / "resume", job.label) as state:
        if before and before.take_back():
            return
        rows, outcomes = cohort.train_job(job, arms, state, checkpoints=True)
        checkpoints.write(job.path("checkpoints"), rows, list(arms), job.settings["seeds"], job.label)
        contracts.write(outcomes, job.path("outcomes"))
        if before:
            before.keep()


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["data"], outputs=["outcomes", "checkpoints"], optional=["choice"])
