"""A restarted job continues from its own states, and from no damaged or foreign state.

One process at a time holds the folder of the states.
"""

import errno
import fcntl
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from plasticity.config.models import Network, Optimizer, Problem, Setting, Training
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.storage import checkpoints, restart
from plasticity.training import chunks, trainer
from plasticity.training.method import Intervention

STAMP = {
    "settings": '{"lr": 0.1}',
    "code": '{"train.py": "0f"}',
    "versions": '{"torch": "2"}',
    "source": "train",
    "data": "0f",
}
STATE = {
    "task": np.array(3),
    "alive": np.array([True, False]),
    "parameters": np.array([[0.5, -0.0, np.nan], [np.inf, 1e-45, 3]], np.float32),
    "optimizer_steps": np.arange(2),
}


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level("INFO", "plasticity")


@pytest.fixture
def states(tmp_path):
    """A folder with one saved state."""
    states = restart.RestartStates(tmp_path, STAMP)
    states.save(0, STATE)
    return states


def is_same(state, other):
    """Compare the names, types, shapes and bits of two states."""

    def bits(array):
        return array.dtype, array.shape, array.tobytes()

    assert state.keys() == other.keys()
    return all(bits(state[name]) == bits(other[name]) for name in other)


# Saving and loading


def test_state_is_loaded_as_it_was_saved(states):
    assert is_same(states.load(0), STATE)


def test_missing_state_is_none_without_a_warning(tmp_path, caplog):
    assert restart.RestartStates(tmp_path, STAMP).load(0) is None
    assert not caplog.messages


def test_saved_state_replaces_the_former_one(states):
    later = STATE | {"task": np.array(4)}
    states.save(0, later)
    assert is_same(states.load(0), later)
    assert [path.name for path in states.folder.iterdir()] == ["state_0.npz"]


def test_each_chunk_has_its_own_state(states):
    states.save(5, STATE | {"task": np.array(9)})
    assert (states.load(0)["task"], states.load(5)["task"]) == (3, 9)


@pytest.mark.parametrize("when", ["at the start", "midway"])
def test_failed_save_gives_one_sentence_and_leaves_the_former_state(states, monkeypatch, when):
    def fail(file, **arrays):
        file.write(b"PK" if when == "midway" else b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(
        StudyError,
        match=r"state_0\.npz could not be written \(No space left on device\): free space",
    ):
        states.save(0, STATE | {"task": np.array(4)})
    assert is_same(states.load(0), STATE)
    assert [path.name for path in states.folder.iterdir()] == ["state_0.npz"]


def is_refused(states, caplog):
    """Try to load the state; check the warning if it is refused."""
    caplog.clear()
    if states.load(0) is not None:
        return False
    (line,) = caplog.messages
    assert line.startswith(f"{states.folder}/state_0.npz is truncated or damaged (")
    assert line.endswith("), so it is ignored")
    return True


@pytest.mark.parametrize("remaining", [0, 1, 100, 0.25, 0.5, 0.75, 0.9, 0.99, -22, -1])
def test_truncated_state_is_refused(states, caplog, remaining):
    path = states.folder / "state_0.npz"
    content = path.read_bytes()
    size = remaining if isinstance(remaining, int) else int(remaining * len(content))
    path.write_bytes(content[:size])
    assert is_refused(states, caplog)


def test_state_with_any_flipped_bit_is_refused_or_unchanged(states, caplog):
    path = states.folder / "state_0.npz"
    content, draw = path.read_bytes(), np.random.default_rng(0)
    count = 0
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 1 << draw.integers(8)
        path.write_bytes(damaged)
        if is_refused(states, caplog):
            count += 1
        else:
            assert is_same(states.load(0), STATE), f"byte {index} of {len(content)}"
    assert count > len(content) / 2


def test_state_with_a_flipped_bit_in_any_array_is_refused(states, caplog):
    path = states.folder / "state_0.npz"
    content = path.read_bytes()
    for name, values in STATE.items():
        header = content.index(f"{name}.npy".encode())
        first_number = content.index(b"\n" + values.tobytes(), header) + 1
        damaged = bytearray(content)
        damaged[first_number] ^= 1
        path.write_bytes(damaged)
        assert is_refused(states, caplog), name


def test_state_with_a_smaller_shape_in_a_header_is_refused(states, caplog):
    path = states.folder / "state_0.npz"
    states.save(0, STATE | {"parameters": np.ones((2, 5000), np.float32)})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape': (2, 5000)", b"'shape': (1, 5000)"))
    assert path.read_bytes() != content
    assert is_refused(states, caplog)


def save_without(name):
    """Return a function that saves a state without one of its arrays."""
    stamp = restart.RestartStates(Path(), STAMP).stamp
    arrays = {"stamp": np.array(stamp), "names": np.array(list(STATE))} | STATE
    del arrays[name]
    return lambda path: np.savez(path, **arrays)


OTHER_FILES = {
    "nothing": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "text": lambda path: path.write_text("not a state\n" * 100),
    "an empty archive": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "an array without an archive": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no stamp": save_without("stamp"),
    "no names": save_without("names"),
    "one array missing": save_without("parameters"),
}


@pytest.mark.parametrize("content", OTHER_FILES)
def test_file_that_is_no_state_is_refused(states, caplog, content):
    OTHER_FILES[content](states.folder / "state_0.npz")
    assert is_refused(states, caplog)


def test_pickled_object_is_refused_and_not_executed(states, caplog, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    arrays = {
        "stamp": np.array(states.stamp),
        "names": np.array(["task"]),
        "task": np.array([Trap()], object),
    }
    np.savez(states.folder / "state_0.npz", **arrays)
    assert is_refused(states, caplog)
    assert not (tmp_path / "executed").exists()


def refusal(folder, stamp=STAMP):
    """Return the message of the refusal to lock a folder."""
    with pytest.raises(StudyError) as raised, restart.lock_folder(folder, stamp):
        pytest.fail("the folder was locked")
    return str(raised.value)


def failing(number):
    """Return a function that fails as a system call does."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# States of other jobs


def leave_states(folder, stamp):
    """Write the files of a killed job with this stamp."""
    folder.mkdir(exist_ok=True)
    for first in (0, 2):
        restart.RestartStates(folder, stamp).save(first, STATE)
    (folder / "checkpoints.f4").write_bytes(bytes(100))
    (folder / "state_2.npz.part").write_bytes(b"PK")
    (folder / "lock").write_text("process 1 on another, slurm job none")


def test_states_of_the_same_job_are_loaded(tmp_path, caplog):
    leave_states(tmp_path / "resume", STAMP)
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        assert is_same(states.load(0), STATE)
        assert is_same(states.load(2), STATE)
    assert not caplog.messages


@pytest.mark.parametrize(
    "names", [["settings"], ["code"], ["versions"], ["data"], ["code", "data"]], ids=" and ".join
)
def test_state_with_another_stamp_is_removed_and_the_log_tells_why(tmp_path, caplog, names):
    leave_states(tmp_path / "resume", STAMP | dict.fromkeys(names, "other"))
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        assert states.load(0) is None
        assert states.load(2) is None
    different = " and ".join(names)
    state = f"{states.folder}/state_0.npz"
    assert caplog.messages == [f"{state} was saved with other {different}, so the job starts over"]


def test_all_files_of_a_foreign_job_are_removed(tmp_path):
    leave_states(tmp_path / "resume", STAMP | {"settings": "other"})
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        assert [path.name for path in states.folder.iterdir()] == ["lock"]


def test_state_with_an_unreadable_stamp_is_refused_by_load(tmp_path, caplog):
    leave_states(tmp_path / "resume", STAMP)
    (tmp_path / "resume" / "state_0.npz").write_bytes(b"PK")
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        assert is_refused(states, caplog)
        assert is_same(states.load(2), STATE)


def test_foreign_state_that_cannot_be_removed_gives_one_sentence(tmp_path, monkeypatch):
    leave_states(tmp_path / "resume", STAMP | {"settings": "other"})
    monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    assert "state_0.npz could not be written (Permission denied)" in refusal(tmp_path / "resume")


# The lock

HOLD = """
import sys, time
from pathlib import Path
from plasticity.storage import restart
with restart.lock_folder(Path(sys.argv[1]), {}):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has locked a folder."""
    env = os.environ | {
        "PYTHONPATH": str(Path(restart.__file__).parents[2]),
        "SLURM_JOB_ID": "1234",
    }
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "resume"],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_second_process_is_refused_and_the_message_names_the_first(holder, tmp_path):
    process = f"process {holder.pid} on {platform.node()}, slurm job 1234"
    message = f"{tmp_path} is being worked on by {process}: wait for it, or end it"
    assert refusal(tmp_path / "resume") == message


def test_folder_of_a_killed_process_can_be_locked(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with restart.lock_folder(tmp_path / "resume", {}) as states:
        slurm_job = os.environ.get("SLURM_JOB_ID", "none")
        process = f"process {os.getpid()} on {platform.node()}, slurm job {slurm_job}"
        assert (states.folder / "lock").read_text() == process


def test_refused_process_changes_no_file(tmp_path):
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        states.save(0, STATE)
        before = {path.name: path.read_bytes() for path in states.folder.iterdir()}
        refusal(tmp_path / "resume", STAMP | {"code": "other"})
        assert {path.name: path.read_bytes() for path in states.folder.iterdir()} == before


def test_folder_is_removed_after_success(tmp_path):
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        states.save(0, STATE)
        (states.folder / "checkpoints.f4").touch()
        (states.folder / "state_0.npz.part").touch()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "failure", [StudyError("no space"), SystemExit(143), ZeroDivisionError()], ids=repr
)
def test_folder_stays_after_a_failure_and_its_states_can_be_loaded(tmp_path, failure):
    def fail():
        with restart.lock_folder(tmp_path / "resume", STAMP) as states:
            states.save(0, STATE)
            raise failure

    with pytest.raises(type(failure)):
        fail()
    with restart.lock_folder(tmp_path / "resume", STAMP) as again:
        assert is_same(again.load(0), STATE)


def test_states_are_removed_first_and_the_lock_last(tmp_path, monkeypatch):
    removed, unlink = [], Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, *more: (removed.append(path.name), unlink(path, *more))
    )
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        for name in ("a.f4", "state_0.npz", "z.f4", "state_7.npz"):
            (states.folder / name).touch()
    assert sorted(removed[:2]) == ["state_0.npz", "state_7.npz"]
    assert sorted(removed[2:4]) == ["a.f4", "z.f4"]
    assert removed[4:] == ["lock"]


def test_folder_that_cannot_be_removed_is_no_error(tmp_path, monkeypatch):
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        states.save(0, STATE)
        monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    assert is_same(states.load(0), STATE)


def test_file_system_without_locks_gives_a_warning_and_the_job_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with restart.lock_folder(tmp_path / "resume", STAMP) as states:
        states.save(0, STATE)
    (line,) = caplog.messages
    assert line.startswith(f"{states.folder}/lock cannot be locked (No locks available): make sure")
    assert not states.folder.exists()


def finish(folder):
    """Remove the folder as its holder does after success."""
    (folder / "lock").unlink()
    folder.rmdir()


def finish_and_start_another(folder):
    """Remove the folder, and create it again as a third process does."""
    finish(folder)
    folder.mkdir()
    (folder / "lock").write_text("process 3")


@pytest.mark.parametrize("meanwhile", [finish, finish_and_start_another])
def test_process_that_locks_just_after_the_first_finished_stops(tmp_path, monkeypatch, meanwhile):
    folder, flock = tmp_path / "resume", fcntl.flock

    def lock_late(file, operation):
        meanwhile(folder)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    assert (
        refusal(folder)
        == f"{tmp_path} was finished by another process just now: start snakemake again"
    )
    assert not folder.exists() or (folder / "lock").read_text() == "process 3"


def test_process_that_starts_while_the_folder_is_removed_stops(tmp_path, monkeypatch):
    mkdir = Path.mkdir
    monkeypatch.setattr(
        Path, "mkdir", lambda path, **options: (mkdir(path, **options), path.rmdir())
    )
    assert (
        refusal(tmp_path / "resume")
        == f"{tmp_path} was finished by another process just now: start snakemake again"
    )


def test_folder_that_is_not_writable_gives_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    assert "resume/lock could not be written (Not a directory)" in refusal(
        tmp_path / "file" / "resume"
    )


def test_full_disk_before_the_first_state_gives_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        platform, "node", failing(errno.ENOSPC)
    )  # asked as the holder's name is written
    assert "resume/lock could not be written (No space left on device): free space" in refusal(
        tmp_path / "resume"
    )


# Restarted training

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=20, batch=10, epochs=2, tasks=4),
    Network("mlp", "relu", options={"width": 4, "depth": 1}),
    Optimizer("adam", options={"lr": 0.01}),
)
RUNS = [({"strength": strength}, seed) for strength in (0.01, 0.1) for seed in (0, 1, 2)]


@pytest.fixture
def job(data, tmp_path, monkeypatch):
    """``job(stop_after)`` trains in chunks of two runs, and stops after so many tasks."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.build_for(SETTING, data).named_parameters()
    }
    need = chunks.memory.per_run(SETTING, data)
    learned, learn = [], trainer.Trainer.learn

    def counted(runs):
        if len(learned) == train.stop_after:
            raise KeyboardInterrupt
        learn(runs)
        learned.append(runs.learner.task)

    def train(stop_after=None, runs=2, folder=tmp_path):
        learned.clear()
        train.stop_after = stop_after
        granted = chunks.memory.BASE + data.nbytes + runs * need
        with restart.lock_folder(folder / "resume", STAMP) as states:
            rows = checkpoints.CheckpointRows(
                states.folder / "checkpoints.f4", range(0, 4, 2), len(RUNS), shapes
            )
            values = chunks.train_in_chunks(
                SETTING, "l2", RUNS, data, Training(), rows, states, granted
            )
            return values | {f"row_{task}": rows.read(task) for task in rows.tasks}, list(learned)

    monkeypatch.setattr(trainer.Trainer, "learn", counted)
    return train


@pytest.fixture
def uninterrupted(job, tmp_path):
    """The outcomes of a job that is never stopped."""
    return job(folder=tmp_path / "uninterrupted")[0]


def test_training_continues_after_the_last_finished_task(job, uninterrupted, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=6)
    caplog.clear()
    outcomes, learned = job()
    assert learned == [3, 4, 1, 2, 3, 4]
    continued = [re.search(r"after task (\d) of 4", line) for line in caplog.messages]
    assert [int(match[1]) for match in continued if match] == [4, 2]
    assert is_same(outcomes, uninterrupted)


def truncate_state(folder):
    path = folder / "state_2.npz"
    path.write_bytes(path.read_bytes()[:-50])


def remove_rows(folder):
    (folder / "checkpoints.f4").unlink()


def truncate_rows(folder):
    path = folder / "checkpoints.f4"
    path.write_bytes(path.read_bytes()[:-1])


# which file the log names, and the tasks that are trained again
DAMAGES = {
    truncate_state: ("state_2.npz", [1, 2, 3, 4] * 2),
    remove_rows: ("checkpoints.f4", [1, 2, 3, 4] * 3),
}


def is_warning(line, name):
    """Answer whether a line of the log says that the file is truncated."""
    return f"{name} is truncated" in line


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_training_starts_over_where_a_file_is_truncated_or_missing(
    job, uninterrupted, tmp_path, caplog, damage
):
    name, expected_tasks = DAMAGES[damage]
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=7)
    damage(tmp_path / "resume")
    caplog.clear()
    outcomes, learned = job()
    assert learned == expected_tasks
    assert [line for line in caplog.messages if is_warning(line, name)]
    assert is_same(outcomes, uninterrupted)


def test_truncated_rows_are_refused(job, uninterrupted, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=3)
    truncate_rows(tmp_path / "resume")
    outcomes, learned = job()
    assert learned == [1, 2, 3, 4] * 3
    assert [line for line in caplog.messages if is_warning(line, "checkpoints.f4")]
    assert is_same(outcomes, uninterrupted)


def test_everything_that_training_carries_from_task_to_task_is_restored(data, monkeypatch):
    monkeypatch.setattr(
        Intervention,
        "state",
        lambda method: {"mark": method.__dict__.setdefault("mark", torch.zeros(2))},
    )
    one, other = (
        trainer.Trainer(SETTING, "none", [({}, 0), ({}, 1)], data, device=torch.device("cpu"))
        for _ in range(2)
    )
    assert {
        "parameters",
        "alive",
        "optimizer_first",
        "none_mark",
        "outcome_status",
    } < one.state_tensors().keys()
    one.learner.task = 3
    for tensor in one.state_tensors().values():
        tensor.copy_(torch.rand(tensor.shape) > 0.5)
    other.restore(one.state())
    assert other.learner.task == 3
    assert is_same(other.state(), one.state())


@pytest.mark.parametrize("runs", [1, 3, 6])
def test_started_chunk_keeps_its_size_whatever_fits_into_memory(job, uninterrupted, runs):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=7)
    outcomes, learned = job(runs=runs)
    assert learned[:1] == [4]
    assert learned[1:] == [1, 2, 3, 4] * {1: 2, 3: 1, 6: 1}[runs]
    assert is_same(outcomes, uninterrupted)


def test_split_into_chunks_is_logged_once_and_only_if_it_happens(job, uninterrupted, caplog):
    caplog.clear()
    assert is_same(job(runs=6)[0], uninterrupted)
    assert not [line for line in caplog.messages if "need about" in line]
    assert is_same(job(runs=2)[0], uninterrupted)
    (line,) = [line for line in caplog.messages if "need about" in line]
    assert "6 runs need about" in line
    assert "in 3 chunks" in line
