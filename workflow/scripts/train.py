"""Train an ensemble through all tasks, and save outcomes and checkpoints.

A killed job continues after its last finished task.
"""

import json

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.models import Setting, Training, arm_name
    from plasticity.models import ensemble
    from plasticity.storage import checkpoints, netcdf, restart
    from plasticity.storage.cache import open_cache
    from plasticity.training import chunks

    ensemble.make_deterministic()
    method = job.settings["method"]
    results = [job.path("outcomes"), job.path("checkpoints")]
    folder = results[0].parent
    selected = None
    if job.paths["choice"]:
        selected = json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"]
    if selected is None:
        arms = {arm_name(method, arm): arm for arm in job.settings["arms"]}
    else:
        job = job.with_settings(arms=[selected])
        arms = {method: selected}
    cache = open_cache(folder, selected, job.label, results)
    with restart.lock_folder(folder / "resume", job.label) as state:
        if cache.restore():
            return
        trained = chunks.train_ensemble(
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
            state_tasks=job.settings.get("state_tasks", ()),
        )
        checkpoints.write(
            job.path("checkpoints"),
            trained.rows,
            list(arms),
            job.settings["seeds"],
            job.label,
            trained.states,
        )
        netcdf.write(trained.outcomes, job.path("outcomes"))
        cache.store()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data"], outputs=["outcomes", "checkpoints"], optional=["choice"])
