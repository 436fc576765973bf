"""A job of the fork server runs and ends like one of a new interpreter."""

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plasticity import fork_server
from plasticity.provenance import code_digest

SCRIPTS = code_digest.SCRIPTS
CLIENT = "import sys; from plasticity import fork_server; sys.exit(fork_server.run(sys.argv[1:]))"
REPORT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv,
    "folder": os.getcwd(),
    "variable": os.environ["SOME_VARIABLE"],
    "server": os.environ.get("PLASTICITY_FORK_SERVER"),
    "stdin": sys.stdin.read(),
    "path": sys.path[0],
    "has arrays": "xarray" in sys.modules,
    "project": [name for name in sys.modules if name.startswith("plasticity")],
    "pid": os.getpid(),
}))
print("a message", file=sys.stderr)
"""
ENDS = {  # last line of a script, and the exit status that a shell reports
    "last line": ("", 0),
    "exit status": ("sys.exit(3)", 3),
    "exit message": ("sys.exit('a message')", 1),
    "exception": ("raise ValueError('a message')", 1),
    "signal": ("os.kill(os.getpid(), 9)", 137),
    "exit function": ("import atexit; atexit.register(os._exit, 5)", 5),
}
WAIT = """
import os, pathlib, signal, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(33))
pathlib.Path("part").write_text(str(os.getpid()))
pathlib.Path("part").rename("pid")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server():
    """Start a server, and return the environment of its jobs."""
    patch = pytest.MonkeyPatch()
    patch.delenv(fork_server.VARIABLE, raising=False)
    process = fork_server.start()
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS), "SOME_VARIABLE": "ü\n"}
    patch.undo()
    yield env
    process.stdin.close()
    process.wait()


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a script with the name of an entry."""

    def write(text):
        path = tmp_path / "choose.py"
        path.write_text(text)
        return path

    return write


def run(script, env, *arguments):
    command = [sys.executable, "-c", CLIENT, script, *arguments]
    return subprocess.run(
        command, env=env, cwd=script.parent, capture_output=True, text=True, input="text"
    )


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


def test_job_has_its_arguments_folder_environment_and_streams(server, script):
    path = script(REPORT)
    done = run(path, server, "--option", "with spaces and ü")
    assert done.stderr == "a message\n"
    state = json.loads(done.stdout)
    assert state.pop("pid") != os.getpid()
    assert state == {
        "argv": [str(path), "--option", "with spaces and ü"],
        "folder": str(path.parent),
        "variable": "ü\n",
        "server": None,
        "stdin": "text",
        "path": str(path.parent),
        "has arrays": True,
        "project": [],
    }


@pytest.mark.parametrize("end", ENDS)
def test_job_ends_with_the_exit_status_of_a_new_interpreter(server, script, end):
    last_line, status = ENDS[end]
    done = run(script(f"import os, sys\nprint('output')\nsys.stdout.flush()\n{last_line}"), server)
    assert done.stdout == "output\n"
    assert done.returncode == status
    assert ("a message" in done.stderr) == ("message" in last_line)


def test_edit_of_a_script_takes_effect_in_its_next_job(server, script):
    assert run(script("print(1)"), server).stdout == "1\n"
    assert run(script("print(2)"), server).stdout == "2\n"


def test_signal_is_passed_on_and_a_killed_sender_ends_its_job(server, script, tmp_path):
    path = script(WAIT)
    for number, status in ((signal.SIGTERM, 33), (signal.SIGKILL, -signal.SIGKILL)):
        sender = subprocess.Popen([sys.executable, "-c", CLIENT, path], env=server, cwd=tmp_path)
        wait_until((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        (tmp_path / "pid").unlink()
        assert pid != sender.pid
        sender.send_signal(number)
        assert sender.wait() == status
        wait_until(lambda pid=pid: not is_alive(pid))


@pytest.mark.parametrize(
    "change",
    [
        {"OMP_NUM_THREADS": "2"},  # libraries in the server would use one thread
        {fork_server.VARIABLE: "/nowhere/jobs"},
        {fork_server.VARIABLE: ""},
    ],
)
def test_job_that_the_server_cannot_take_runs_in_its_own_process(server, script, change):
    done = run(script("print('forked')"), server | change)
    assert done.stdout == ""  # the caller runs it
    assert done.returncode == 0


@pytest.mark.parametrize("part", [b"", bytes(3), (50).to_bytes(8, "big") + b"{"])
def test_sender_that_ends_in_the_middle_of_a_request_ends_no_other_job(server, script, part):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server[fork_server.VARIABLE])
        connection.sendall(part)
    assert run(script("print('forked')"), server).stdout == "forked\n"


def test_script_without_listed_packages_runs_in_its_own_process(server, tmp_path):
    path = tmp_path / "other.py"
    path.write_text("print('forked')")
    assert run(path, server).stdout == ""


def test_server_ends_after_its_launcher_and_the_last_job(script, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv(fork_server.VARIABLE, raising=False)
    process = fork_server.start()
    address = Path(os.environ[fork_server.VARIABLE])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS)}
    path = script(WAIT)
    sender = subprocess.Popen([sys.executable, "-c", CLIENT, path], env=env, cwd=tmp_path)
    wait_until((tmp_path / "pid").exists)
    process.stdin.close()  # as when Snakemake ends
    time.sleep(0.1)
    assert process.poll() is None
    sender.terminate()
    assert sender.wait() == 33
    assert process.wait() == 0
    assert capfd.readouterr() == ("", "")  # packages may complain about objects that are left
    assert not address.parent.exists()
    assert run(path, env).returncode == 0  # nobody listens any more


def test_snakemake_in_a_job_uses_the_outer_server(monkeypatch):
    monkeypatch.setenv(fork_server.VARIABLE, "outer")
    assert fork_server.start() is None
    assert os.environ[fork_server.VARIABLE] == "outer"


# Entries and their packages

ENTRIES = sorted(
    path
    for path in SCRIPTS.glob("*.py")
    if "start(main" in path.read_text() or path.stem in {"run", "explore", "reproduce"}
)
PACKAGES = {"torch", "xarray", "pandas", "numpy", "netCDF4", "matplotlib", "scipy", "statsmodels"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.stem)
def test_entry_imports_no_package_before_its_arguments_are_right(entry):
    program = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='x')"
    )
    program += "; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, entry],
        cwd=SCRIPTS,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "plasticity" in loaded
    assert not PACKAGES & loaded


def entries_of_rules():
    """Return the scripts that rules of Snakemake call, without those that end it in a moment."""
    rules = "".join(path.read_text() for path in (SCRIPTS.parent / "rules").glob("*.smk"))
    return {path.stem for path in SCRIPTS.glob("*.py") if f"/{path.name}" in rules}


def test_server_knows_the_packages_of_all_entries_of_rules():
    # `cost` measures the speed of this machine
    assert set(fork_server.PACKAGES) == entries_of_rules() - {"cost", "audit"}


@pytest.mark.parametrize("entry", fork_server.PACKAGES)
def test_server_imports_torch_and_matplotlib_only_for_entries_that_import_them(entry):
    imported = code_digest.code_digest(SCRIPTS / f"{entry}.py")
    listed = {name.partition(".")[0] for name in fork_server.PACKAGES[entry]}
    for package in ("torch", "matplotlib", "statsmodels"):
        assert (package in listed) <= (package in imported), package
    assert ("torch" in listed) == (entry in {"train", "tune", "lengthen", "curvature", "intervene"})


def test_imports_of_entries_are_in_functions_or_of_the_basics():
    for entry in ENTRIES:
        for node in ast.parse(entry.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("plasticity."):
                room = node.module.split(".")[1]
                assert room not in {"statistics", "report", "training", "curvature", "models"}
