"""Change the checkpoints of an ensemble on purpose, measure the copies, and train them for a task.

A killed job continues after its last finished part.
"""

import json

from plasticity import log
from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.models import Curvature
    from plasticity.interventions.experiment import Experiment, Treatment
    from plasticity.models import ensemble
    from plasticity.storage import netcdf, restart
    from plasticity.storage.cache import open_cache
    from plasticity.storage.checkpoints import Checkpoints

    ensemble.make_deterministic()
    output = job.path("output")
    selected = None
    if job.paths["choice"]:
        selected = json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"]
    cache = open_cache(output.parent, selected, job.label, [output])
    with restart.lock_folder(output.parent / "resume_interventions", job.label) as states:
        if cache.restore():
            return
        checkpoints = Checkpoints(job.path("checkpoints"))
        experiment = Experiment(
            checkpoints,
            json.loads(checkpoints.settings),
            [Treatment(**values) for values in job.settings["treatments"]],
            Curvature.of(job.settings["curvature"]),
            netcdf.read(job.path("data")),
            job.memory,
        )
        progress = log.progress(f"intervene {log.name_of_runs(output.parent)}", "part")
        variables, coordinates = experiment.run(job.settings["tasks"], states, progress)
        title = "treated copies of an ensemble's checkpoints"
        copies = netcdf.dataset(experiment.table, variables, coordinates, title, job.label)
        netcdf.write(copies, output)
        cache.store()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data", "checkpoints"], outputs=["output"], optional=["choice"])
