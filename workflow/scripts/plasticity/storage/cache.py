"""Finished results, kept beside an ensemble by hard links: what was made of the same is never computed again.

Snakemake knows nothing of this folder (it deletes what it knows before it makes it again), and plans too much in two cases. Behind a choice
of an arm that is made anew it plans everything: the last results of each arm are kept. And of a job that its launcher did not live to see
finished, it thinks that it never was: on a cluster, the last results of every job are kept. With them lie what they were made of, and a
digest of every file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from plasticity.errors import StudyError
from plasticity.log import log
from plasticity.provenance import record
from plasticity.storage import netcdf


def kept(
    beside: Path,
    arm: Mapping[str, object] | None,
    stamp: Mapping[str, str],
    results: Sequence[Path],
) -> "Kept | None":
    """Where a job's results are kept, if it is of a tuned arm or runs on a cluster, or did; else None.

    Args:
        beside: the ensemble's folder.
        arm: the chosen one, or None where nothing was chosen.
        stamp: what results must have been made of to be taken back.
        results: where they belong.
    """
    if arm is None and "SLURM_JOB_ID" not in os.environ and not (beside / "kept").exists():
        return None
    return Kept(beside, arm, stamp, results)


class Kept:
    """The results of one job, for one arm where arms are chosen.

    Attributes:
        folder: where they are kept.
        stamp: what they must have been made of to be taken back.
        results: where they belong.
    """

    def __init__(
        self,
        beside: Path,
        arm: Mapping[str, object] | None,
        stamp: Mapping[str, str],
        results: Sequence[Path],
    ) -> None:
        name = (
            "last"
            if arm is None
            else hashlib.sha256(json.dumps(arm, sort_keys=True).encode()).hexdigest()[:12]
        )
        self.folder, self.stamp, self.results = (
            beside / "kept" / stamp["source"] / name,
            dict(stamp),
            results,
        )
        self._note = self.folder / "note.json"

    def take_back(self) -> bool:
        """Put what is kept where it belongs, as new; false if nothing is, or it is of something else or altered, as the log says."""
        if not self._note.exists():
            return False
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if different := [
                name for name, value in self.stamp.items() if note["stamp"].get(name) != value
            ]:
                log.info(
                    "%s was made of other %s, so it is made anew",
                    self.folder,
                    " and ".join(different),
                )
                return False
            if altered := [
                path.name
                for path in self.results
                if record.digest(self.folder / path.name) != note["digests"][path.name]
            ]:
                raise ValueError(f"{' and '.join(altered)} was altered")
            for path in self.results:
                with netcdf.atomic_write(path) as part:
                    part.unlink(missing_ok=True)
                    os.link(self.folder / path.name, part)
                    os.utime(
                        part
                    )  # later than what it was made of, or Snakemake would have it made again
        except Exception as error:  # noqa: BLE001 - what is torn can fail in any way
            log.warning("%s cannot be taken back (%s), so it is made anew", self.folder, error)
            return False
        log.info(
            "made before of the same, and taken back from %s: nothing is computed", self.folder
        )
        return True

    def keep(self) -> None:
        """Link the results into the folder, in the place of those that were there; where that is impossible, nothing is kept."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            for path in self.results:
                os.link(path, self.folder / path.name)
            digests = {path.name: record.digest(path) for path in self.results}
            with netcdf.atomic_write(self._note) as part:
                part.write_text(
                    json.dumps({"stamp": self.stamp, "digests": digests}, sort_keys=True),
                    encoding="utf-8",
                )
        except (OSError, StudyError) as error:
            log.warning("%s cannot be kept (%s): it may be computed again", self.folder, error)
            shutil.rmtree(self.folder, ignore_errors=True)
