"""Know which Snakemake may have locked a folder, and remove the lock if all of these are dead.

Snakemake's lock has no owner. So every Snakemake writes its host and its process id into a file of
its own before it locks the folder. Whoever holds the lock is one of them. Its jobs find both in
their environment. Standard library only.
"""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from plasticity.atomic import atomic_write
from plasticity.errors import StudyError

LOCKS = Path(".snakemake", "locks")
OWNERS = Path(".snakemake", "launchers")
VARIABLE = "PLASTICITY_LAUNCHER"  # of the environment of jobs


class Owner(NamedTuple):
    """A process that may have locked a folder.

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
    """Write this process as one that may lock a folder, and as the launcher of its jobs.

    Args:
        folder: in which Snakemake runs.
    """
    owner = Owner.this_process()
    os.environ[VARIABLE] = json.dumps(owner._asdict())
    path = folder / OWNERS / f"{owner.host}-{owner.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(owner._asdict()), encoding="utf-8")


def release_lock_of_dead_process(folder: Path) -> str:
    """Remove Snakemake's lock if no process that may hold it is alive.

    Args:
        folder: in which Snakemake runs.

    Returns:
        What was done, or an empty text if the folder is not locked.

    Raises:
        StudyError: a process that may hold the lock is alive, or nobody can tell.
    """
    locks = list((folder / LOCKS).glob("*"))
    owners = _read_owners(folder)
    if locks:
        _check_all_dead(folder, owners)
    for path in [*locks, *(path for path, owner in owners.items() if _is_dead_here(owner))]:
        path.unlink(missing_ok=True)
    return f"The process that had locked {folder} is dead. Its lock is removed." if locks else ""


def _check_all_dead(folder: Path, owners: Mapping[Path, Owner]) -> None:
    """Raise if a process that may hold the lock is alive, or if that cannot be known."""
    advice = "If no snakemake is at work in this folder, run: snakemake --unlock"
    if not owners:
        raise StudyError(f"{folder} is locked by an unknown process. {advice}")
    for owner in owners.values():
        if owner.host != socket.gethostname():
            raise StudyError(
                f"{folder} is locked, perhaps by process {owner.pid} on {owner.host}, which cannot "
                f"be seen from here. {advice}"
            )
        if owner.is_alive:
            raise StudyError(
                f"snakemake is at work in {folder}: process {owner.pid}. Wait until it ends, or "
                f"stop it: kill {owner.pid}"
            )


def has_died() -> bool:
    """Check whether the launcher of this job has died, so that nobody will know of its end.

    A job that was started by hand has no launcher, and that of another machine cannot be seen.
    """
    owner = _parse(os.environ.get(VARIABLE, ""))
    return owner is not None and _is_dead_here(owner)


def _is_dead_here(owner: Owner) -> bool:
    """Check whether a process of this machine is dead."""
    return owner.host == socket.gethostname() and not owner.is_alive


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks after the boot; empty if that is not known."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the name of the program in parentheses, which may contain spaces.
    return line.rpartition(")")[2].split()[19]


def _read_owners(folder: Path) -> dict[Path, Owner]:
    """Read the processes that may hold the lock, by the path of their file."""
    owners = {}
    for path in sorted((folder / OWNERS).glob("*.json")):
        with suppress(OSError, UnicodeError):
            if owner := _parse(path.read_text(encoding="utf-8")):
                owners[path] = owner
    return owners


def _parse(text: str) -> Owner | None:
    """Read a process; None if the text describes none."""
    try:
        return Owner(**json.loads(text))
    except (TypeError, ValueError):
        return None
