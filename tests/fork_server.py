"""Run Python commands in processes that are forked from one which has imported the environment's packages.

A job of the tiny study works for a fraction of a second, but needs several seconds to import torch, Snakemake or matplotlib. This
server imports them once. `forked_python.py` takes the place of `python` in the tests: it sends a command to the server, which forks a
process that runs the command with the arguments, environment, folder and streams of its sender. The server imports nothing of the
project, so each process imports the project's own modules as a fresh interpreter would.

    python fork_server.py SOCKET
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

PACKAGES = [
    "docutils.core",
    "itables",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "netCDF4",
    "pandas",
    "pydantic",
    "pytest",
    "scipy.stats",
    "sklearn.datasets",
    "snakemake.cli",
    "snakemake.report",
    "snakemake_executor_plugin_slurm",
    "statsmodels.api",
    "torch.func",
    "torch.fx.experimental.symbolic_shapes",  # imported by the first call of torch.autograd.grad
    "tqdm",
    "xarray",
]


def serve(address: str) -> None:
    """Fork a process for each command, until the server is terminated."""
    for package in PACKAGES:
        importlib.import_module(package)
    gc.freeze()  # a collection in a forked process would visit, and so copy, all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes processes that ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                streams, command = receive(connection)
                if os.fork() == 0:
                    listener.close()
                    run(connection, streams, **command)
                for stream in streams:
                    os.close(stream)


def receive(connection: socket.socket) -> tuple[list[int], dict[str, Any]]:
    """Receive the three standard streams of a sender, and its command."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as text:
        return streams, json.loads(text.read(int.from_bytes(size, "big")))


def run(
    connection: socket.socket,
    streams: list[int],
    arguments: list[str],
    folder: str,
    env: dict[str, str],
) -> None:
    """Become the process of a command: run it, send its exit status, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream, standard in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, standard)
        os.close(stream)
    threading.Thread(target=end_with_sender, args=[connection], daemon=True).start()
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    given = env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, given), *(path for path in sys.path[1:] if path not in own)]
    status = execute(arguments)
    threading._shutdown()  # type: ignore[attr-defined] # as an interpreter does: wait for threads, then call exit functions
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    connection.sendall(bytes([status]))
    os._exit(status)


def end_with_sender(connection: socket.socket) -> None:
    """Kill this process as soon as its sender has ended, for example because a test killed it."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def execute(arguments: list[str]) -> int:
    """Run a script, or a module after ``-m``; return its exit status."""
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - an interpreter prints any exception, and ends with status 1
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
