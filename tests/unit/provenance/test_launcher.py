"""The lock of a dead Snakemake is removed; that of a live one is not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plasticity.errors import StudyError
from plasticity.provenance import launcher


@pytest.fixture
def locked(tmp_path):
    """A folder with Snakemake's locks."""
    locks = tmp_path / launcher.LOCKS
    locks.mkdir(parents=True)
    for name in ("0.input.lock", "0.output.lock"):
        (locks / name).write_text("results/a\n", encoding="utf-8")
    return tmp_path


def write_owner(folder, host, pid, started="1"):
    owner = {"host": host, "pid": pid, "started": started}
    (folder / launcher.OWNER).write_text(json.dumps(owner), encoding="utf-8")


def run_and_wait(*code):
    """Run a Python program to its end, and return its process id."""
    process = subprocess.Popen([sys.executable, "-c", *code])
    process.wait()
    return process.pid


def locks_of(folder):
    return list((folder / launcher.LOCKS).iterdir())


def test_folder_without_a_lock_needs_nothing(tmp_path):
    assert launcher.release_lock_of_dead_process(tmp_path) == ""


def test_lock_of_a_dead_process_is_removed(locked):
    pid = run_and_wait("pass")
    write_owner(locked, socket.gethostname(), pid)
    assert f"Process {pid}" in launcher.release_lock_of_dead_process(locked)
    assert not locks_of(locked)


def test_lock_of_an_earlier_process_with_the_same_id_is_removed(locked):
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        write_owner(locked, socket.gethostname(), sleeper.pid, started="1")
        launcher.release_lock_of_dead_process(locked)
        sleeper.kill()
    assert not locks_of(locked)


def test_lock_of_a_live_process_stays_and_the_process_is_named(locked):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from plasticity.provenance import launcher\n"
        "launcher._write_owner(Path(sys.argv[2])); print(flush=True); input()"
    )
    scripts = str(Path(launcher.__file__).parents[2])
    command = [sys.executable, "-c", program, scripts, str(locked)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        with pytest.raises(StudyError, match=rf"process {process.pid}\. Wait until it ends"):
            launcher.release_lock_of_dead_process(locked)
        process.kill()
    assert len(locks_of(locked)) == 2


def test_lock_of_another_machine_stays(locked):
    write_owner(locked, "elsewhere", 1)
    with pytest.raises(StudyError, match="process 1 on elsewhere, which cannot be seen"):
        launcher.release_lock_of_dead_process(locked)
    assert len(locks_of(locked)) == 2


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"pid": 3}'])
def test_lock_of_an_unknown_process_stays(locked, text):
    if text is not None:
        (locked / launcher.OWNER).write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=r"unknown process.*snakemake --unlock"):
        launcher.release_lock_of_dead_process(locked)
    assert len(locks_of(locked)) == 2


def test_start_claims_a_folder_that_is_not_locked(tmp_path):
    launcher.claim(tmp_path)
    owner = json.loads((tmp_path / launcher.OWNER).read_text(encoding="utf-8"))
    assert owner["host"] == socket.gethostname()
    assert owner["pid"] == os.getpid()
    assert launcher.Owner(**owner).is_alive


def test_second_start_does_not_claim_a_locked_folder(locked):
    write_owner(locked, "elsewhere", 1)
    launcher.claim(locked)
    assert json.loads((locked / launcher.OWNER).read_text(encoding="utf-8"))["pid"] == 1


def test_launcher_is_dead_only_if_its_process_ended_and_left_its_lock(locked):
    assert not launcher.is_dead(locked), "nobody knows"
    write_owner(locked, "elsewhere", 1)
    assert not launcher.is_dead(locked)
    write_owner(locked, socket.gethostname(), run_and_wait("pass"))
    assert launcher.is_dead(locked)
    for lock in locks_of(locked):
        lock.unlink()
    assert not launcher.is_dead(locked), "it ended by itself"
