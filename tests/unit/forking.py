"""Jobs whose processes are forked, killed, stopped and looked at."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from plasticity.training import memory

SCRIPTS = Path(memory.__file__).parents[2]


class Forks:
    """The process that forks a child for each call of the entry."""

    def __init__(self):
        # no GPU: the same bytes are promised on a CPU
        env = os.environ | {"PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, Path(__file__).with_name("forks.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, **call):
        """Its answer to a call."""
        print(json.dumps(call), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@dataclass
class Forked:
    """A job, what its processes left, and what they said.

    Attributes:
        root: a folder for all that.
        forks: forks its processes.
    """

    root: Path
    forks: Forks

    def argv(self):
        """The entry and its arguments, without the log."""
        raise NotImplementedError

    def start(
        self,
        log="log",
        at=None,
        number=signal.SIGKILL,
        again=False,
        largest=None,
        amid_a_write=False,
    ):
        """Start a process, which gets a signal at a moment of its own, or can make no file larger than so many bytes."""
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
            said=str(self.root / "said"),
            watched=watched,
            limited=limited,
        )

    def end(self, pid):
        """Wait for a process; its exit status, negative if a signal ended it."""
        rescue = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
        rescue.start()
        try:
            return self.forks.ask(wait=pid)
        finally:
            rescue.cancel()

    def paused(self, at):
        """Start a process that stops at a moment of its own, until it is sent SIGCONT."""
        pid = self.start(at=at, number=signal.SIGSTOP)
        assert self.forks.ask(pause=pid) == signal.SIGSTOP, self.text("said")
        return pid

    def run(self, **options):
        """Start a process and wait for it."""
        return self.end(self.start(**options))

    @property
    def folder(self):
        """Where its results go."""
        return self.root / "out"

    def text(self, name):
        """What a file says that may not be there yet."""
        return (self.root / name).read_text() if (self.root / name).exists() else ""

    @property
    def moments(self):
        """All of its processes, in their order."""
        return self.text("notes").splitlines()

    @property
    def results(self):
        """Every file that it left, with its bytes."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
