"""Measure a cohort's checkpoints: curvature, features, units and weights at the start of every task."""

import json

from plasticity import contracts, jobs, lockstep, logs, measures
from plasticity.checkpoints import Checkpoints
from plasticity.settings import Curvature, Setting


def main(job: jobs.Job) -> None:
    lockstep.settle()
    checkpoints = Checkpoints(job.path("checkpoints"))
    variables, coordinates = measures.measure(
        checkpoints,
        Setting.of(json.loads(checkpoints.settings)["setting"]),
        Curvature(**job.settings),
        contracts.read(job.path("data")),
        logs.progress(f"curvature {job.path('output').parent}"),
    )
    contracts.write(contracts.dataset(measures.TABLE, variables, coordinates, "measures of a cohort", job.stamp), job.path("output"))


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["data", "checkpoints", "output"])
