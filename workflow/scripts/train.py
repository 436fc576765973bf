"""Train one ensemble through all tasks: outcomes, and checkpoints at the start of tasks.

A job that was killed continues after its last finished task.
"""

import json

from plasticity.config.models import Setting, Training, arm_name
from plasticity.job import Job, start
from plasticity.models import ensemble
from plasticity.storage import checkpoints, netcdf, restart
from plasticity.storage.cache import kept
from plasticity.training import chunks


def main(job: Job) -> None:
    ensemble.make_deterministic()
    method, results = job.settings["method"], [job.path("outcomes"), job.path("checkpoints")]
    folder = results[0].parent
    arm = (
        json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"]
        if job.paths["choice"]
        else None
    )
    if arm is None:
        arms = {arm_name(method, arm): arm for arm in job.settings["arms"]}
    else:
        job, arms = job.knowing(arms=[arm]), {method: arm}
    before = kept(folder, arm, job.label, results)
    with restart.held(folder / "resume", job.label) as state:
        if before and before.take_back():
            return
        rows, outcomes = chunks.train_ensemble(
            Setting.of(job.settings["setting"]),
            method,
            arms,
            job.settings["seeds"],
            netcdf.read(job.path("data")),
            Training(**job.settings["training"]),
            state,
            with_checkpoints=True,
            memory_limit=job.memory,
            attributes=job.label,
        )
        checkpoints.write(
            job.path("checkpoints"), rows, list(arms), job.settings["seeds"], job.label
        )
        netcdf.write(outcomes, job.path("outcomes"))
        if before:
            before.keep()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"], outputs=["outcomes", "checkpoints"], optional=["choice"])
