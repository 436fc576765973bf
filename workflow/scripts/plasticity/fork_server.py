"""Fork local jobs from a process that has imported their packages. Standard library only.

A small job works for a few seconds, and importing torch takes as long. So Snakemake starts this
server before the first job on its own machine. A job sends its command line, environment, folder
and standard streams, and waits. The server forks a process that runs the job's script from its
first line. So a job has its own process, log and exit status, and a retry or a rerun is as without
the server. The server imports packages only when a job first needs them, and never a module of this
project, so that an edit takes effect in the next job.

If there is no server, or it cannot take a job, the job runs in its own process.

    python fork_server.py LISTENER
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

VARIABLE = "PLASTICITY_FORK_SERVER"  # of the environment of jobs: the path of the server's socket
# Snakemake sets these to the number of a job's threads. Libraries read them when they are imported.
THREADS = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
ARRAYS = ("numpy", "pandas", "xarray", "netCDF4")
# torch imports the second one at its first call of autograd with given gradients
TRAINING = (*ARRAYS, "torch", "torch.fx.experimental.symbolic_shapes")
# torch.func imports torch's compiler, although nothing is compiled
CURVATURE = (*TRAINING, "scipy.special", "torch._dynamo")
# packages that the scripts import, by the name of the script
PACKAGES: Mapping[str, Sequence[str]] = {
    "prepare": ARRAYS,
    "tune": TRAINING,
    "lengthen": TRAINING,
    "choose": ARRAYS,
    "train": TRAINING,
    "curvature": CURVATURE,
    "intervene": CURVATURE,
    "gather": ARRAYS,
    "analyse": (*ARRAYS, "scipy.stats", "statsmodels.api"),
    "draw": (*ARRAYS, "matplotlib.pyplot", "matplotlib.backends.backend_agg"),
    "typeset": ARRAYS,
    "report": (*ARRAYS, "docutils.core", "itables", "jinja2", "PIL.Image"),
}
SIZE_BYTES = 8  # of a length or a process id in a message
SIGNALLED = 128  # a shell adds it to the number of the signal that ended a process
CLOSED = -1  # file descriptor of a closed socket


def start() -> "subprocess.Popen[bytes] | None":
    """Start a server that ends after this process, and name it in the environment of its jobs.

    A Snakemake within a job uses the server of the outer one. Only Linux tells when a forked
    process ends without asking again and again.

    Returns:
        The server, which ends when its stdin is closed; None if none was started.
    """
    if VARIABLE in os.environ or not hasattr(os, "pidfd_open"):
        return None
    # a socket's path may have about 100 characters, and that of a working directory may be longer
    address = Path(tempfile.mkdtemp(prefix="plasticity-"), "jobs")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()  # from now on jobs can connect, and wait until the server answers
        server = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            stdin=subprocess.PIPE,  # is closed when this process ends
            pass_fds=[listener.fileno()],
            env=os.environ | dict.fromkeys(THREADS, "1"),
            start_new_session=True,  # Ctrl-C reaches jobs through the processes that wait for them
        )
    os.environ[VARIABLE] = str(address)
    return server


def run(command: Sequence[str]) -> int | None:
    """Run a script of this project in a process of the server.

    Signals that ask this process to end are passed on. If it is killed, the server kills the other.

    Args:
        command: the script and its arguments.

    Returns:
        Its exit status, as a shell gives it. None: no server took the job.
    """
    address = os.environ.get(VARIABLE)
    if not address:
        return None
    request = Request(list(command), os.getcwd(), dict(os.environ), sys.executable)  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            request.send(connection)
            answer = connection.recv(SIZE_BYTES)
        except OSError:  # no server listens there any more
            return None
        if not answer:
            return None
        pid = int.from_bytes(answer, "big")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: _pass_on(pid, number))
        status = connection.recv(1)
    return status[0] if status else SIGNALLED + signal.SIGKILL


def _pass_on(pid: int, number: int) -> None:
    """Send a signal to a job, which may just have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass(frozen=True)
class Request:
    """What a job sends to the server, besides its standard streams.

    Attributes:
        command: the script and its arguments.
        folder: the working directory.
        environment: of the job.
        executable: the interpreter that the job was called with.
    """

    command: list[str]
    folder: str
    environment: dict[str, str]
    executable: str

    def send(self, connection: socket.socket) -> None:
        """Send the request with the standard streams of this process."""
        text = json.dumps(vars(self)).encode()
        socket.send_fds(connection, [len(text).to_bytes(SIZE_BYTES, "big")], [0, 1, 2])
        connection.sendall(text)

    @classmethod
    def receive(cls, connection: socket.socket) -> tuple[Self, list[int]]:
        """Receive a request, and the standard streams of its sender as file descriptors."""
        size, streams, _, _ = socket.recv_fds(connection, SIZE_BYTES, 3)
        with connection.makefile("rb") as file:
            text = file.read(int.from_bytes(size, "big"))
        return cls(**json.loads(text)), streams

    @property
    def is_supported(self) -> bool:
        """Whether the job would have the same interpreter and threads in a process of the server.

        A job in an environment of conda has another interpreter.
        """
        return (
            self.executable == sys.executable
            and self.environment.get("OMP_NUM_THREADS") == "1"
            and Path(self.command[0]).stem in PACKAGES
        )

    def run(self, streams: Sequence[int]) -> None:
        """Run the job in this process, with the streams of its sender."""
        for stream, standard in zip(streams, (0, 1, 2), strict=True):
            os.dup2(stream, standard)
            os.close(stream)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        del os.environ[VARIABLE]
        sys.argv[:] = self.command
        sys.path.insert(0, str(Path(self.command[0]).absolute().parent))
        runpy.run_path(self.command[0], run_name="__main__")


class Job(NamedTuple):
    """A request in its own process, with the standard streams of its sender."""

    request: Request
    streams: Sequence[int]


class Server:
    """Forks jobs, and tells those who wait for them how they ended."""

    def __init__(self, listener: socket.socket) -> None:
        """Wait for jobs, and for the end of the process that holds the other end of stdin."""
        self._listener = listener
        self._events = selectors.DefaultSelector()
        self._events.register(listener, selectors.EVENT_READ, self._accept)
        self._events.register(sys.stdin, selectors.EVENT_READ, self._stop_listening)

    def serve(self) -> Job | None:
        """Fork jobs until the launcher and all jobs have ended.

        Returns:
            In each forked process its job; in the server's process None.
        """
        while self._events.get_map():
            for key, _ in self._events.select():
                job: Job | None = key.data()
                if job:
                    return job
        return None

    def _stop_listening(self) -> None:
        """Take no more jobs, because the launcher has ended."""
        self._events.unregister(sys.stdin)
        self._events.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> Job | None:
        """Fork a process for the job that connects, and return the job there."""
        connection, _ = self._listener.accept()
        try:
            request, streams = Request.receive(connection)
        except (OSError, ValueError, TypeError):  # the sender was killed in the middle
            connection.close()
            return None
        if request.is_supported:
            for package in PACKAGES[Path(request.command[0]).stem]:
                with suppress(ImportError):  # the job says what is missing
                    importlib.import_module(package)
            # a collection in a forked process would write to all imported objects, and so copy them
            gc.freeze()
            pid = os.fork()
            if pid == 0:
                self._close()
                connection.close()
                return Job(request, streams)
            self._watch(pid, connection)
        else:
            connection.close()
        for stream in streams:
            os.close(stream)
        return None

    def _watch(self, pid: int, connection: socket.socket) -> None:
        """Tell the sender of a job its process id, and later its exit status.

        If the sender ends first, it was killed, and then the job is killed, too.
        """
        process = os.pidfd_open(pid)

        def end() -> None:
            _, status = os.waitpid(pid, 0)
            self._events.unregister(process)
            os.close(process)
            if connection.fileno() != CLOSED:
                code = os.waitstatus_to_exitcode(status)
                _send(connection, bytes([code if code >= 0 else SIGNALLED - code]))
                self._events.unregister(connection)
                connection.close()

        def kill() -> None:
            if connection.fileno() != CLOSED:
                self._events.unregister(connection)
                connection.close()
                os.kill(pid, signal.SIGKILL)

        self._events.register(process, selectors.EVENT_READ, end)
        self._events.register(connection, selectors.EVENT_READ, kill)
        _send(connection, pid.to_bytes(SIZE_BYTES, "big"))

    def _close(self) -> None:
        """Close what a forked process has inherited, except its standard streams."""
        for key in list(self._events.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif isinstance(key.fileobj, int):
                os.close(key.fileobj)
        self._events.close()


def _send(connection: socket.socket, data: bytes) -> None:
    """Send data to the sender of a job, who may have ended."""
    with suppress(OSError):
        connection.sendall(data)


def main(listener: socket.socket) -> None:
    """Serve those who connect. Each forked process runs its job here, and then exits."""
    del sys.path[0]  # the folder of this file, whose modules have names such as `log`
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(listener.getsockname()).parent
    job = Server(listener).serve()
    try:
        if job:
            signal.signal(signal.SIGINT, interrupt)
            job.request.run(job.streams)
        else:
            shutil.rmtree(folder)
    finally:
        gc.unfreeze()  # so that the interpreter deletes all objects when it exits


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
