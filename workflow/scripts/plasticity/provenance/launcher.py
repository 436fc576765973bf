"""Know which Snakemake locked a folder, and remove the lock if that process is dead.

Snakemake's lock has no owner. So every start of Snakemake that is about to lock the folder writes
its host and its process id next to the lock. Standard library only.
"""

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple, Self

from plasticity.atomic import atomic_write
from plasticity.errors import StudyError

LOCKS = Path(".snakemake", "locks")
OWNER = Path(".snakemake", "launcher.json")


class Owner(NamedTuple):
    """The process that locked a folder.

    Attributes:
        host: name of its machine.
        pid: process id on that machine.
        started: when the process started, as Linux counts it; empty elsewhere. It tells apart two
            processes that have the same id one after the other.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def this_process(cls) -> Self:
        """Describe the process that calls."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()))

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs on this machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _start_time(self.pid) == self.started


def claim(folder: Path) -> None:
    """Write this process as the owner of the lock that Snakemake is about to set.

    Args:
        folder: in which Snakemake runs.
    """
    if any((folder / LOCKS).glob("*")):
        return  # Snakemake is about to refuse to start
    _write_owner(folder)


def _write_owner(folder: Path) -> None:
    """Write this process as the owner of the lock."""
    path = folder / OWNER
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(Owner.this_process()._asdict()), encoding="utf-8")


def release_lock_of_dead_process(folder: Path) -> str:
    """Remove Snakemake's lock if its owner is dead.

    Args:
        folder: in which Snakemake runs.

    Returns:
        What was done, or an empty text if the folder is not locked.

    Raises:
        StudyError: the owner is alive, or nobody can tell.
    """
    locks = list((folder / LOCKS).glob("*"))
    if not locks:
        return ""
    owner = _read_owner(folder / OWNER)
    advice = "If no snakemake is at work in this folder, run: snakemake --unlock"
    if owner is None:
        raise StudyError(f"{folder} is locked by an unknown process. {advice}")
    if owner.host != socket.gethostname():
        raise StudyError(
            f"{folder} is locked by process {owner.pid} on {owner.host}, which cannot be seen from "
            f"here. {advice}"
        )
    if owner.is_alive:
        raise StudyError(
            f"snakemake is at work in {folder}: process {owner.pid}. Wait until it ends, or stop "
            f"it: kill {owner.pid}"
        )
    for lock in locks:
        lock.unlink(missing_ok=True)
    return f"Process {owner.pid}, which had locked {folder}, is dead. Its lock is removed."


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks after the boot; empty if that is not known."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the name of the program in parentheses, which may contain spaces.
    return line.rpartition(")")[2].split()[19]


def is_dead(folder: Path) -> bool:
    """Check whether a folder is locked by a Snakemake on this machine that is dead."""
    if not any((folder / LOCKS).glob("*")):
        return False  # the last Snakemake ended by itself
    owner = _read_owner(folder / OWNER)
    return owner is not None and owner.host == socket.gethostname() and not owner.is_alive


def _read_owner(path: Path) -> Owner | None:
    """Read who locked the folder; None if that is not known."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None
