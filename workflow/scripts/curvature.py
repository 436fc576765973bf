"""Measure the checkpoints of an ensemble: curvature, features, units and weights.

A killed job continues after its last finished task.
"""

import json

from plasticity import log
from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.models import Curvature, Setting
    from plasticity.curvature import measure
    from plasticity.models import ensemble
    from plasticity.storage import netcdf, restart
    from plasticity.storage.cache import open_cache
    from plasticity.storage.checkpoints import Checkpoints
    from plasticity.training import memory

    ensemble.make_deterministic()
    output = job.path("output")
    selected = None
    if job.paths["choice"]:
        selected = json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"]
    cache = open_cache(output.parent, selected, job.label, [output])
    with restart.lock_folder(output.parent / "resume_curvature", job.label) as state:
        if cache.restore():
            return
        checkpoints = Checkpoints(job.path("checkpoints"))
        curvature = Curvature.of(job.settings)
        data = netcdf.read(job.path("data"))
        device = ensemble.default_device()
        variables, coordinates = measure.measure(
            checkpoints,
            Setting.of(json.loads(checkpoints.settings)["setting"]),
            curvature,
            data,
            log.progress(f"curvature {log.name_of_runs(output.parent)}", "task"),
            state,
            memory.available(device, job.memory, data.nbytes),
            device,
        )
        table = measure.table(curvature)
        title = "measures of an ensemble"
        measures = netcdf.dataset(table, variables, coordinates, title, job.label)
        netcdf.write(measures, output)
        cache.store()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data", "checkpoints"], outputs=["output"], optional=["choice"])
