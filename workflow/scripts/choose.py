"""Choose a method's arm for one setting, by the outcomes of its arms on the tuning seeds."""

import json

from plasticity.config.models import Criterion
from plasticity.job import Job, start
from plasticity.storage import netcdf
from plasticity.training import selection


def main(job: Job) -> None:
    criterion = Criterion(**job.settings["criterion"])
    choice = selection.choose(
        [netcdf.read(path) for path in job.paths["outcomes"]], criterion, job.settings["setting"]
    )
    with netcdf.atomic_write(job.path("output")) as part, netcdf.explained(job.path("output")):
        part.write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    start(main, __doc__, inputs=["outcomes"], outputs=["output"])
