"""Choose a method's arm for one setting, by the outcomes of its arms on the tuning seeds."""

import json

from plasticity import contracts, jobs, tuning
from plasticity.settings import Criterion


def main(job: jobs.Job) -> None:
    criterion = Criterion(**job.settings["criterion"])
    choice = tuning.choose([contracts.read(path) for path in job.paths["outcomes"]], criterion, job.settings["setting"])
    with contracts.whole(job.path("output")) as part, contracts.explained(job.path("output")):
        part.write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["outcomes"], outputs=["output"])
