"""Train all arms of one method on tuning seeds, for the selection of an arm.

A job that was killed continues after its last finished task.
"""

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.models import Setting, Training, arm_name
    from plasticity.models import ensemble
    from plasticity.storage import netcdf, restart
    from plasticity.storage.cache import open_cache
    from plasticity.training import chunks

    ensemble.make_deterministic()
    arms = {arm_name(job.settings["method"], arm): arm for arm in job.settings["arms"]}
    folder = job.path("outcomes").parent
    cache = open_cache(folder, None, job.label, job.paths["outcomes"])
    with restart.lock_folder(folder / "resume", job.label) as state:
        if cache.restore():
            return
        trained = chunks.train_ensemble(
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
        netcdf.write(trained.outcomes, job.path("outcomes"))
        cache.store()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"], outputs=["outcomes"])
