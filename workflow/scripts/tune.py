"""Train all arms of one method on tuning seeds: outcomes, by which one is chosen. A job that was killed goes on from its last task."""

from plasticity import cohort, contracts, jobs, lockstep, resume
from plasticity.kept import kept
from plasticity.settings import arm_name


def main(job: jobs.Job) -> None:
    lockstep.settle()
    arms = {arm_name(job.settings["method"], arm): arm for arm in job.settings["arms"]}
    before = kept(job.path("outcomes").parent, None, job.label, job.paths["outcomes"])
    with resume.held(job.path("outcomes").parent / "resume", job.label) as state:
        if before and before.take_back():
            return
        _, outcomes = cohort.train_job(job, arms, state, checkpoints=False)
        contracts.write(outcomes, job.path("outcomes"))
        if before:
            before.keep()


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["data"], outputs=["outcomes"])
