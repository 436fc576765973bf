"""Restart states: what a job has finished, so that a killed job continues instead of starting over.

The states are in a folder next to the job's results, which is removed when the results are written.
Snakemake does not know the folder: it would delete the folder before each attempt. Each state has a
stamp of settings, code, versions and data. A state with another stamp is deleted, a damaged state
is ignored, and the log tells both. While a job runs it locks the folder. The kernel releases the
lock when the process ends.
"""

import fcntl
import json
import os
import platform
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError
from plasticity.log import log

LOCK = "lock"


class RestartStates:
    """Restart states by name, each in one npz file.

    The name is the first run of a chunk, a task, or both. The npz format holds no code, and has a
    checksum for every array.

    Attributes:
        folder: of the files.
        stamp: which states must have to be loaded, as JSON.
    """

    def __init__(self, folder: Path, stamp: Mapping[str, str]) -> None:
        self.folder = folder
        self.stamp = json.dumps(stamp, sort_keys=True)

    def save(self, name: int | str, state: Mapping[str, np.ndarray]) -> None:
        """Save a state; it replaces the former state with this name.

        Raises:
            StudyError: the disk is full, or the folder is not writable. The former state stays.
        """
        path = self._path(name)
        stamp = np.array(self.stamp)
        names = np.array(list(state))
        with atomic_write(path) as part, explain_write_errors(path), part.open("wb") as file:
            np.savez(file, allow_pickle=False, stamp=stamp, names=names, **state)

    def load(self, name: int | str) -> dict[str, np.ndarray] | None:
        """Load the state that was saved last.

        Returns:
            None if there is no state, or if it is truncated or damaged, which the log tells.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            return self._read(path)
        except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
            log.warning("%s is truncated or damaged (%s), so it is ignored", path, error)
            return None

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        """Read a state and check that it is complete.

        Raises:
            Exception: of any type, if the file is damaged.
        """
        with zipfile.ZipFile(path) as archive:
            # numpy skips the checksum of an array whose header gives a smaller shape
            altered = archive.testzip()
        if altered:
            raise ValueError(f"the checksum of {altered} is wrong")
        with path.open("rb") as file, np.load(file) as arrays:
            state = {name: arrays[name] for name in arrays.files}
        stamp = str(state.pop("stamp"))
        names = state.pop("names").tolist()
        if stamp != self.stamp or names != list(state):
            raise ValueError("arrays are missing")
        return state

    def discard_foreign_states(self) -> None:
        """Empty the folder if a state has another stamp, since all files are from the same job."""
        expected = json.loads(self.stamp)
        for path in sorted(self.folder.glob("state_*.npz")):
            try:
                with path.open("rb") as file, np.load(file) as arrays:
                    stamp = json.loads(str(arrays["stamp"]))
            except Exception:  # noqa: BLE001 - damaged: `load` will warn
                continue
            different = [name for name in expected if stamp.get(name) != expected[name]]
            if different:
                names = " and ".join(different)
                log.warning("%s was saved with other %s, so the job starts over", path, names)
                with explain_write_errors(path):
                    _empty(self.folder)
                return

    def _path(self, name: int | str) -> Path:
        """Return the path of a state."""
        return self.folder / f"state_{name}.npz"


@contextmanager
def lock_folder(folder: Path, stamp: Mapping[str, str]) -> Iterator[RestartStates]:
    """Lock a folder of restart states, and remove the folder if the body of the `with` succeeds.

    If the body raises, the states stay.

    Args:
        folder: is created if it does not exist.
        stamp: of the job; states with another stamp are deleted.

    Raises:
        StudyError: another process holds the lock, or the folder is not writable.
    """
    lock = folder / LOCK
    with _open_lock(lock) as file:
        _acquire(file, lock)
        states = RestartStates(folder, stamp)
        states.discard_foreign_states()
        yield states
        with suppress(OSError):  # leftover files do no harm
            _empty(folder)
            lock.unlink()
            folder.rmdir()


def _open_lock(lock: Path) -> BinaryIO:
    """Open the lock file, without locking it yet."""
    with explain_write_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            return lock.open("a+b", buffering=0)
        except FileNotFoundError:
            # the other process removed the folder just now
            raise _just_finished(lock) from None


def _acquire(file: BinaryIO, lock: Path) -> None:
    """Lock the file, and write into it which process holds it.

    Raises:
        StudyError: another process holds the lock, or has just released it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode() or "another process"
        raise StudyError(
            f"{lock.parents[1]} is being worked on by {holder}: wait for it, or end it"
        ) from None
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): make sure that no second job writes the same results",
            lock,
            error.strerror,
        )
    # the other process may have removed the file between our opening and locking it
    if not _is_same_file(file, lock):
        raise _just_finished(lock)
    with explain_write_errors(lock):
        slurm_job = os.environ.get("SLURM_JOB_ID", "none")
        holder = f"process {os.getpid()} on {platform.node()}, slurm job {slurm_job}"
        file.truncate(0)
        file.write(holder.encode())


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    """Check that `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _just_finished(lock: Path) -> StudyError:
    """Create the exception for results that another process finished while this one started."""
    return StudyError(
        f"{lock.parents[1]} was finished by another process just now: start snakemake again"
    )


def _empty(folder: Path) -> None:
    """Remove all files but the lock, and the states first, because they rely on the other files."""
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".npz"):
        if path.name != LOCK:
            path.unlink()
