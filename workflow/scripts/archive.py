"""Put a study into one archive that says what is in it: code, config, lock, datasets, tables, figures, report, and how each was made."""

import shutil
import tempfile
from pathlib import Path

from plasticity import archiving, contracts, jobs


def main(job: jobs.Job) -> None:
    with contracts.whole(job.path("output")) as part, contracts.explained(job.path("output")), tempfile.TemporaryDirectory() as scratch:
        archiving.crate(job.settings, job.paths["results"], Path(scratch)).write_zip(Path(scratch, "archive.zip"))
        shutil.copyfile(Path(scratch, "archive.zip"), part)


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["results"], outputs=["output"])
