"""Measure an ensemble's checkpoints: curvature, features, units, weights. A job that was killed goes on from its last task."""

import json

import torch

from plasticity import log
from plasticity.config.models import Curvature, Setting
from plasticity.curvature import measure
from plasticity.job import Job, start
from plasticity.models import ensemble
from plasticity.storage import netcdf, restart
from plasticity.storage.cache import kept
from plasticity.storage.checkpoints import Checkpoints
from plasticity.training import memory


def main(job: Job) -> None:
    ensemble.make_deterministic()
    output = job.path("output")
    arm = (
        json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"]
        if job.paths["choice"]
        else None
    )
    before = kept(output.parent, arm, job.label, [output])
    with restart.held(output.parent / "resume_curvature", job.label) as state:
        if before and before.take_back():
            return
        checkpoints, curvature = Checkpoints(job.path("checkpoints")), Curvature.of(job.settings)
        data = netcdf.read(job.path("data"))
        variables, coordinates = measure.measure(
            checkpoints,
            Setting.of(json.loads(checkpoints.settings)["setting"]),
            curvature,
            data,
            log.progress(f"curvature {output.parent}"),
            state,
            memory.available(torch.device("cpu"), job.memory, data.nbytes),
        )
        described = measure.table(curvature)
        netcdf.write(
            netcdf.dataset(described, variables, coordinates, "measures of an ensemble", job.label),
            output,
        )
        if before:
            before.keep()


if __name__ == "__main__":
    start(main, __doc__, inputs=["data", "checkpoints"], outputs=["output"], optional=["choice"])
