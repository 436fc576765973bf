"""What a job has reached, in a folder beside its results until they are whole: a job that was killed goes on from there.

Snakemake knows nothing of the folder (it deletes what it knows before it tries again). States are stamped with settings, code, versions
and data; one that is foreign or torn is refused in a sentence. While a job lives it holds a lock, which the kernel lets go when it dies.
"""

import fcntl
import json
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from plasticity.errors import StudyError
from plasticity.log import log
from plasticity.storage import netcdf

LOCK = "lock"


class Resume:
    """States by a number (a wave's first run, a task), one npz file each: a format without code, with a checksum of every array.

    Attributes:
        folder: where they lie.
        stamp: what a state must have been made with to be taken up again.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, str]) -> None:
        self.folder, self.stamp = folder, json.dumps(stamp, sort_keys=True)

    def save(self, place: int, state: Mapping[str, np.ndarray]) -> None:
        """Put a state in the place of the former one.

        Raises:
            StudyError: no space, no permission; the former state stays.
        """
        with (
            netcdf.atomic_write(self._path(place)) as part,
            netcdf.explained(self._path(place)),
            part.open("wb") as file,
        ):
            np.savez(
                file,
                allow_pickle=False,
                stamp=np.array(self.stamp),
                names=np.array(list(state)),
                **state,
            )

    def load(self, place: int) -> dict[str, np.ndarray] | None:
        """The state that was saved last, or None: there is none, or it is torn, which the log says."""
        path = self._path(place)
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                if (
                    altered := archive.testzip()
                ):  # numpy does not look at the checksum of an array that seems to be shorter
                    raise ValueError(f"{altered} was altered")
            with path.open("rb") as file, np.load(file) as arrays:
                state = {name: arrays[name] for name in arrays.files}
            if str(state.pop("stamp")) != self.stamp or state.pop("names").tolist() != list(state):
                raise ValueError("it is not whole")
        except Exception as error:  # noqa: BLE001 - what is torn can fail in any way
            log.warning("%s is torn (%s), so it starts afresh", path, error)
            return None
        return state

    def refuse_foreign(self) -> None:
        """Remove everything if a state was made with other settings, code, versions or data: what lies beside it was, too."""
        wanted = json.loads(self.stamp)
        for path in sorted(self.folder.glob("state_*.npz")):
            try:
                with path.open("rb") as file, np.load(file) as arrays:
                    made_with = json.loads(str(arrays["stamp"]))
            except Exception:  # noqa: BLE001 - torn, as `load` will say
                continue
            if different := [name for name in wanted if made_with.get(name) != wanted[name]]:
                log.warning(
                    "%s was made with other %s, so it starts afresh", path, " and ".join(different)
                )
                with netcdf.explained(path):
                    _empty(self.folder)
                return

    def _path(self, place: int) -> Path:
        return self.folder / f"state_{place}.npz"


@contextmanager
def held(folder: Path, stamp: Mapping[str, str]) -> Iterator[Resume]:
    """Hold the lock of a folder; the folder goes when all went well, and stays with its states when not.

    Raises:
        StudyError: another process that lives holds it.
    """
    lock = folder / LOCK
    finished = StudyError(f"{folder.parent} was finished by another process just now: start again")
    with netcdf.explained(lock):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = lock.open("a+b", buffering=0)
        except FileNotFoundError:  # its holder removed the folder
            raise finished from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode() or "another process"
            raise StudyError(
                f"{folder.parent} is being worked on by {holder}: wait for it, or end it"
            ) from None
        except OSError as error:
            log.warning(
                "%s cannot be locked (%s): see to it that no second job makes the same",
                lock,
                error.strerror,
            )
        try:
            there = os.path.samestat(os.fstat(file.fileno()), lock.stat())
        except FileNotFoundError:
            there = False
        if not there:  # its holder removed it before letting it go
            raise finished
        with netcdf.explained(lock):
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {platform.node()}, slurm job {os.environ.get('SLURM_JOB_ID', 'none')}".encode()
            )
        kept = Resume(folder, stamp)
        kept.refuse_foreign()
        yield kept
        with suppress(OSError):  # what cannot be removed does no harm
            _empty(folder)
            lock.unlink()
            folder.rmdir()


def _empty(folder: Path) -> None:
    """Remove all but the lock: states first, since they count on what else is there."""
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".npz"):
        if path.name != LOCK:
            path.unlink()
