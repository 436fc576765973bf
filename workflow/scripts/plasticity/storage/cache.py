"""Cache of finished results, so that no job computes the same results twice.

The cache is the folder `cache` in an ensemble's folder. It holds hard links to the results, the
stamp of the job and a digest of every file. Snakemake does not know the cache: it deletes the
outputs that it knows before each attempt. It runs a finished job again in two cases:

- The choice of an arm is recomputed, and every job that depends on the choice is planned. The cache
  holds the last results of each arm.
- The launcher died before the job finished. Snakemake then takes the results for incomplete. So a
  job stores its results if its launcher is dead when it ends. On a cluster, where a job cannot see
  its launcher, every job stores its last results.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from plasticity.atomic import atomic_write
from plasticity.errors import StudyError
from plasticity.log import log
from plasticity.provenance import launcher, record

FOLDER = "cache"


def open_cache(
    ensemble: Path,
    arm: Mapping[str, object] | None,
    stamp: Mapping[str, str],
    results: Sequence[Path],
) -> "ResultCache":
    """Open the cache of a job.

    Args:
        ensemble: folder of the ensemble.
        arm: the selected arm. None: the method is not tuned.
        stamp: that results must have to be restored.
        results: paths of the job's results.
    """
    is_on_cluster = "SLURM_JOB_ID" in os.environ
    is_needed = arm is not None or is_on_cluster or (ensemble / FOLDER).exists()
    return ResultCache(ensemble, arm, stamp, results, is_needed=is_needed)


class ResultCache:
    """The cached results of one job, and of one arm if arms are selected.

    Attributes:
        folder: of the links.
        stamp: that the cached results must have to be restored.
        results: paths to which they are restored.
        is_needed: whether results are stored even if the launcher is alive.
    """

    def __init__(
        self,
        ensemble: Path,
        arm: Mapping[str, object] | None,
        stamp: Mapping[str, str],
        results: Sequence[Path],
        *,
        is_needed: bool = True,
    ) -> None:
        self.is_needed = is_needed
        name = "last"
        if arm is not None:
            name = hashlib.sha256(json.dumps(arm, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = ensemble / FOLDER / stamp["source"] / name
        self.stamp = dict(stamp)
        self.results = results
        self._note = self.folder / "note.json"

    def restore(self) -> bool:
        """Link the cached results to their paths, as new files.

        Returns:
            Whether they were restored. The log tells why not, unless the cache is empty.
        """
        if not self._note.exists():
            return False
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            different = [
                name for name, value in self.stamp.items() if note["stamp"].get(name) != value
            ]
            if different:
                names = " and ".join(different)
                log.info("%s has other %s, so its results are recomputed", self.folder, names)
                return False
            self._check_digests(note["digests"])
            for path in self.results:
                self._link(path)
        except Exception as error:  # noqa: BLE001 - a damaged cache can raise anything
            log.warning(
                "%s cannot be restored (%s), so its results are recomputed", self.folder, error
            )
            return False
        log.info("restored from %s: nothing is computed", self.folder)
        return True

    def _check_digests(self, digests: Mapping[str, str]) -> None:
        """Raise ValueError if a cached file was altered."""
        names = [path.name for path in self.results]
        altered = [name for name in names if record.digest(self.folder / name) != digests[name]]
        if altered:
            raise ValueError(f"{' and '.join(altered)} was altered")

    def _link(self, path: Path) -> None:
        """Replace a result by a link to its cached file."""
        with atomic_write(path) as part:
            part.unlink(missing_ok=True)
            os.link(self.folder / path.name, part)
            # Snakemake would run the job again if a result were older than its inputs
            os.utime(part)

    def store(self) -> None:
        """Link the results into the cache, in place of former ones; do nothing if links fail."""
        if not self.is_needed and not launcher.has_died():
            return
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            for path in self.results:
                os.link(path, self.folder / path.name)
            digests = {path.name: record.digest(path) for path in self.results}
            note = json.dumps({"stamp": self.stamp, "digests": digests}, sort_keys=True)
            # the note is written last: without it the cache counts as empty
            with atomic_write(self._note) as part:
                part.write_text(note, encoding="utf-8")
        except (OSError, StudyError) as error:
            log.warning("%s cannot be cached (%s): it may be computed again", self.folder, error)
            shutil.rmtree(self.folder, ignore_errors=True)
