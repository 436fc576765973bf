"""Put a study into one archive that says what is in it: code, config, lock, datasets, tables, figures, report, and how each was made."""

import shutil
import tempfile
from pathlib import Path

from plasticity import archiving
from plasticity.job import Job, start
from plasticity.storage import netcdf


def main(job: Job) -> None:
    with (
        netcdf.atomic_write(job.path("output")) as part,
        netcdf.explained(job.path("output")),
        tempfile.TemporaryDirectory() as scratch,
    ):
        archiving.crate(job.settings, job.paths["results"], Path(scratch)).write_zip(
            Path(scratch, "archive.zip")
        )
        shutil.copyfile(Path(scratch, "archive.zip"), part)


if __name__ == "__main__":
    start(main, __doc__, inputs=["results"], outputs=["output"])
