"""Train all arms of one method on tuning seeds: outcomes, by which one is chosen. A job that was killed goes on from its last task."""

from plasticity.config.models import arm_name
from plasticity.job import Job, start
from plasticity.models import ensemble
from plasticity.storage import netcdf, restart
from plasticity.storage.cache import kept
from plasticity.training import chunks


def main(job: Job) -> None:
    ensemble.make_deterministic()
    arms = {arm_name(job.settings["method"], arm): arm for arm in job.settings["arms"]}
    before = kept(job.path("outcomes").parent, None, job.label, job.paths["outcomes"])
    with restart.held(job.path("outcomes").parent / "resume", job.label) as state:
        if before and before.take_back():
            return
        _, outcomes = chunks.train_job(job, arms, state, checkpoints=False)
        netcdf.write(outcomes, job.path("outcomes"))
        if before:
            before.keep()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"], outputs=["outcomes"])
