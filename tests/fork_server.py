"""Run Python commands in processes that are forked from one with all packages imported.

A job of the tiny study works for a fraction of a second, but it needs several seconds to import
torch, Snakemake or matplotlib. This server imports them once.

In the tests, `forked_python.py` runs in place of `python` and sends its command to the server. The
server forks a process that runs the command with the arguments, environment, folder and streams of
the sender. The server imports no module of the project, so each process imports these modules like
a new interpreter.

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
    "xarray",
]


def serve(address: str) -> None:
    """Fork a process for each command, until the server is terminated."""
    for package in PACKAGES:
        importlib.import_module(package)
    # a collection in a forked process would write to all imported objects, and so copy them
    gc.freeze()
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
    with connection.makefile("rb") as stream:
        request = stream.read(int.from_bytes(size, "big"))
    return streams, json.loads(request)


def run(
    connection: socket.socket,
    streams: list[int],
    arguments: list[str],
    folder: str,
    env: dict[str, str],
) -> None:
    """Turn this process into that of a command: run it, send its exit status, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for stream, standard in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, standard)
        os.close(stream)
    threading.Thread(target=end_with_sender, args=[connection], daemon=True).start()
    enter(folder, env)
    status = execute(arguments)
    # like an interpreter, wait for threads, and then call the exit functions
    threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    connection.sendall(bytes([status]))
    os._exit(status)


def enter(folder: str, env: dict[str, str]) -> None:
    """Change to the folder and the environment of a command, and search its PYTHONPATH."""
    server_paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    command_paths = env.get("PYTHONPATH", "").split(os.pathsep)
    other_paths = [path for path in sys.path[1:] if path not in server_paths]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [*filter(None, command_paths), *other_paths]


def end_with_sender(connection: socket.socket) -> None:
    """Kill this process when its sender ends, for example because a test kills the sender."""
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def execute(arguments: list[str]) -> int:
    """Run a script, or a module after `-m`, and return its exit status."""
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(arguments[0]).absolute().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        return exit_status(error.code)
    except BaseException:  # noqa: BLE001 - an interpreter prints any exception and exits with 1
        traceback.print_exc()
        return 1
    return 0


def exit_status(code: object) -> int:
    """Convert the argument of `sys.exit` to an exit status, and print it if it is text."""
    if isinstance(code, int):
        return code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return 0 if code is None else 1


if __name__ == "__main__":
    serve(sys.argv[1])
