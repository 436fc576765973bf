"""Jobs in forked processes, which tests kill, stop and inspect."""

import json
import os
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from plasticity.training import memory

SCRIPTS = Path(memory.__file__).parents[2]


class Forks:
    """The server process (`forks.py`) that forks a child for each call of an entry."""

    def __init__(self):
        # no GPU, because only a CPU promises the same bytes
        env = os.environ | {"PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, Path(__file__).with_name("forks.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, **call):
        """Send a call to the server and return its answer."""
        print(json.dumps(call), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@dataclass
class Forked(ABC):
    """A job, the files of its processes, and their output.

    Attributes:
        root: folder of all files.
        forks: server that forks its processes.
    """

    root: Path
    forks: Forks

    @abstractmethod
    def argv(self):
        """Return the entry and its arguments, without the log."""

    def start(
        self,
        log="log",
        at=None,
        number=signal.SIGKILL,
        again=False,
        largest=None,
        amid_a_write=False,
    ):
        """Start a process.

        Args:
            log: name of its log file.
            at: the event before which it gets a signal: how the event begins, and its index.
            number: the signal.
            again: send the signal at all later events of this kind, too.
            largest: size of the largest file that it can write, in bytes.
            amid_a_write: end the process during a write of a larger file, rather than let it fail.

        Returns:
            The process id.
        """
        argv = [*self.argv(), "--log", self.root / log]
        watched = {
            "notes": str(self.root / "notes"),
            "below": str(self.folder),
            "fatal": at,
            "number": number,
            "again": again,
        }
        limited = {"size": largest, "fatal": amid_a_write} if largest else None
        return self.forks.ask(
            argv=[str(word) for word in argv],
            said=str(self.root / "printed"),
            watched=watched,
            limited=limited,
        )

    def end(self, pid):
        """Wait for a process and return its exit status, negative if a signal ended it."""
        rescue = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
        rescue.start()
        try:
            return self.forks.ask(wait=pid)
        finally:
            rescue.cancel()

    def paused(self, at):
        """Start a process that stops before an event, until it is sent SIGCONT."""
        pid = self.start(at=at, number=signal.SIGSTOP)
        assert self.forks.ask(pause=pid) == signal.SIGSTOP, self.text("printed")
        return pid

    def run(self, **options):
        """Start a process and wait for its exit status."""
        return self.end(self.start(**options))

    @property
    def folder(self):
        """Folder of its results."""
        return self.root / "out"

    def text(self, name):
        """Return the text of a file; empty if there is none yet."""
        return (self.root / name).read_text() if (self.root / name).exists() else ""

    @property
    def moments(self):
        """Events of all its processes, in order."""
        return self.text("notes").splitlines()

    @property
    def results(self):
        """Bytes of every file in its folder, by path."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
