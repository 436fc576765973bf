"""Select an arm of a method in one setting, by the outcomes of all arms on the tuning seeds."""

import json

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.models import Tuning
    from plasticity.storage import netcdf
    from plasticity.training import selection

    tuning = Tuning(**job.settings["criterion"])
    outcomes = [netcdf.read(path) for path in job.paths["outcomes"]]
    choice = selection.choose(outcomes, tuning, job.settings["setting"])
    output = job.path("output")
    with atomic_write(output) as part, explain_write_errors(output):
        part.write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    start(main, __doc__, inputs=["outcomes"], outputs=["output"])
