"""Train all arms of one method on tuning seeds, for the selection of an arm.

A job that was killed continues after its last finished task.
"""

from plasticity.config.models import Setting, Training, arm_name
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
        _, outcomes = chunks.train_ensemble(
            Setting.of(job.settings["setting"]),
            job.settings["method"],
            arms,
            job.settings["seeds"],
            netcdf.read(job.path("data")),
            Training(**job.settings["training"]),
            state,
            with_checkpoints=False,
            memory_limit=job.memory,
            attributes=job.label,
        )
        netcdf.write(outcomes, job.path("outcomes"))
        if before:
            before.keep()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"], outputs=["outcomes"])
