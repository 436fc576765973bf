"""Train further arms of a method on the tuning seeds while the best arm lies at an end of the grid.

The outcomes of all arms, with the added ones, go into one file. A job that was killed continues
after its last finished task.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from plasticity.job import Job, start
from plasticity.log import log

if TYPE_CHECKING:
    import xarray as xr

    from plasticity.storage import restart


def main(job: Job) -> None:
    import numpy as np
    import xarray as xr

    from plasticity.config.models import Tuning, arm_name
    from plasticity.models import ensemble
    from plasticity.storage import netcdf, restart
    from plasticity.storage.cache import open_cache
    from plasticity.training import grids, selection

    ensemble.make_deterministic()
    method = job.settings["method"]
    tuning = Tuning(**job.settings["tuning"])
    arms = list(job.settings["arms"])
    folder = job.path("outcomes").parent
    cache = open_cache(folder, None, job.label, job.paths["outcomes"])
    grid = xr.concat([netcdf.read(path) for path in job.paths["tuned_on"]], "seed", join="exact")
    outcomes = [grid]
    with ExitStack() as locks:
        locks.enter_context(restart.lock_folder(folder / "resume", job.label))
        if cache.restore():
            return
        for number in range(tuning.lengthen):
            scores = selection.scores(xr.concat(outcomes, "arm", join="exact"), tuning)
            added = grids.arms_beyond(method, arms, arms[int(scores.argmin())])
            if not added or not np.isfinite(scores).any():
                break
            log.info("the best arm is at an end: adding %s", [arm_name(method, a) for a in added])
            # A killed job goes through the finished rounds again, from their last states.
            round_folder = folder / f"resume_{number}"
            state = locks.enter_context(restart.lock_folder(round_folder, job.label))
            outcomes.append(train(job, added, grid.seed.values.tolist(), state))
            arms += added
        job = job.with_settings(arms=arms)
        longer = xr.concat(outcomes, "arm", join="exact").assign_attrs(job.label)
        netcdf.write(longer, job.path("outcomes"))
        cache.store()


def train(
    job: Job, arms: list[dict[str, Any]], seeds: list[int], state: restart.RestartStates
) -> xr.Dataset:
    """Train the added arms on all tuning seeds."""
    from plasticity.config.models import Setting, Training, arm_name
    from plasticity.storage import netcdf
    from plasticity.training import chunks

    trained = chunks.train_ensemble(
        Setting.of(job.settings["setting"]),
        job.settings["method"],
        {arm_name(job.settings["method"], arm): arm for arm in arms},
        seeds,
        netcdf.read(job.path("data")),
        Training(**job.settings["training"]),
        state,
        with_checkpoints=False,
        memory_limit=job.memory,
        attributes=job.label,
    )
    return trained.outcomes


if __name__ == "__main__":
    start(main, __doc__, inputs=["data", "tuned_on"], outputs=["outcomes"])
