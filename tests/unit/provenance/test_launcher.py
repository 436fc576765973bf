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


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Restore the variable after each test."""
    monkeypatch.setenv(launcher.VARIABLE, "")


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
    path = folder / launcher.OWNERS / f"{host}-{pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner), encoding="utf-8")


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
    assert "Its lock is removed" in launcher.release_lock_of_dead_process(locked)
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
        "launcher.claim(Path(sys.argv[2])); print(flush=True); input()"
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
        (locked / launcher.OWNERS).mkdir()
        (locked / launcher.OWNERS / "vm-1.json").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=r"unknown process.*snakemake --unlock"):
        launcher.release_lock_of_dead_process(locked)
    assert len(locks_of(locked)) == 2


def test_start_writes_its_process(tmp_path):
    launcher.claim(tmp_path)
    (path,) = (tmp_path / launcher.OWNERS).iterdir()
    owner = launcher.Owner(**json.loads(path.read_text(encoding="utf-8")))
    assert owner[:2] == (socket.gethostname(), os.getpid())
    assert owner.is_alive


def test_second_start_that_is_refused_does_not_hide_the_live_holder(locked):
    launcher.claim(locked)  # the holder is this process, which is alive
    write_owner(locked, socket.gethostname(), run_and_wait("pass"))
    with pytest.raises(StudyError, match=f"process {os.getpid()}"):
        launcher.release_lock_of_dead_process(locked)
    assert len(locks_of(locked)) == 2


def test_files_of_dead_processes_are_removed(tmp_path):
    write_owner(tmp_path, socket.gethostname(), run_and_wait("pass"))
    launcher.claim(tmp_path)
    launcher.release_lock_of_dead_process(tmp_path)
    (path,) = (tmp_path / launcher.OWNERS).iterdir()
    assert str(os.getpid()) in path.name


def described(host, pid, started="1"):
    return json.dumps({"host": host, "pid": pid, "started": started})


def test_job_knows_whether_its_launcher_has_died(tmp_path, monkeypatch):
    monkeypatch.delenv(launcher.VARIABLE, raising=False)
    assert not launcher.has_died(), "it was started by hand"
    launcher.claim(tmp_path)
    assert not launcher.has_died()
    for text, has_died in {
        described(socket.gethostname(), run_and_wait("pass")): True,
        described(socket.gethostname(), os.getpid(), started="1"): True,
        described("elsewhere", 1): False,
        "{": False,
    }.items():
        monkeypatch.setenv(launcher.VARIABLE, text)
        assert launcher.has_died() == has_died, text
