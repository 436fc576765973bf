"""Measure a cohort's checkpoints: curvature, features, units, weights. A job that was killed goes on from its last task."""

import json

import torch

from plasticity import contracts, jobs, lockstep, logs, measures, memory, resume
from plasticity.checkpoints import Checkpoints
from plasticity.kept import kept
from plasticity.settings import Curvature, Setting


def main(job: jobs.Job) -> None:
    lockstep.settle()
    output = job.path("output")
    arm = json.loads(job.path("choice").read_text(encoding="utf-8"))["arm"] if job.paths["choice"] else None
    before = kept(output.parent, arm, job.label, [output])
    with resume.held(output.parent / "resume_curvature", job.label) as state:
        if before and before.take_back():
            return
        checkpoints, curvature = Checkpoints(job.path("checkpoints")), Curvature.of(job.settings)
        data = contracts.read(job.path("data"))
        variables, coordinates = measures.measure(
            checkpoints,
            Setting.of(json.loads(checkpoints.settings)["setting"]),
            curvature,
            data,
            logs.progress(f"curvature {output.parent}"),
            state,
            memory.available(torch.device("cpu"), job.memory, data.nbytes),
        )
        described = measures.table(curvature)
        contracts.write(contracts.dataset(described, variables, coordinates, "measures of a cohort", job.label), output)
        if before:
            before.keep()


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["data", "checkpoints"], outputs=["output"], optional=["choice"])
