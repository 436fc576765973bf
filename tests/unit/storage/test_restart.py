"""What a killed job left behind: taken up again if it is whole and its own, refused in a sentence if not, held by one process at a time."""

import errno
import fcntl
import os
import platform
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
def _informed(caplog):
    caplog.set_level("INFO", "plasticity")


@pytest.fixture
def kept(tmp_path):
    """A folder in which a state was saved."""
    kept = restart.Resume(tmp_path, STAMP)
    kept.save(0, STATE)
    return kept


def same(one, other):
    """Whether two states have the same names, types and bits."""
    assert one.keys() == other.keys()
    return all(
        (one[name].dtype, one[name].shape, one[name].tobytes()) == (v.dtype, v.shape, v.tobytes())
        for name, v in other.items()
    )


# States


def test_a_state_is_loaded_as_it_was_saved(kept):
    assert same(kept.load(0), STATE)


def test_before_the_first_state_there_is_none_and_nothing_is_said(tmp_path, caplog):
    assert restart.Resume(tmp_path, STAMP).load(0) is None
    assert not caplog.messages


def test_a_state_takes_the_place_of_the_former_one(kept):
    later = STATE | {"task": np.array(4)}
    kept.save(0, later)
    assert same(kept.load(0), later)
    assert [path.name for path in kept.folder.iterdir()] == ["state_0.npz"]


def test_each_wave_has_a_state_of_its_own(kept):
    kept.save(5, STATE | {"task": np.array(9)})
    assert (kept.load(0)["task"], kept.load(5)["task"]) == (3, 9)


@pytest.mark.parametrize("moment", ["before", "midway"])
def test_a_state_that_cannot_be_saved_is_said_in_a_sentence_and_the_former_one_stays(
    kept, monkeypatch, moment
):
    def full(file, **arrays):
        file.write(b"PK" if moment == "midway" else b"")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        StudyError,
        match=r"state_0\.npz could not be written \(No space left on device\): free space",
    ):
        kept.save(0, STATE | {"task": np.array(4)})
    assert same(kept.load(0), STATE)
    assert [path.name for path in kept.folder.iterdir()] == ["state_0.npz"]


def refused(kept, caplog):
    """Whether the state is refused, in a sentence that names it and says what comes of it."""
    caplog.clear()
    if kept.load(0) is not None:
        return False
    (line,) = caplog.messages
    assert line.startswith(f"{kept.folder}/state_0.npz is torn (")
    assert line.endswith("), so it starts afresh")
    return True


@pytest.mark.parametrize("keep", [0, 1, 100, 0.25, 0.5, 0.75, 0.9, 0.99, -22, -1])
def test_a_truncated_state_is_refused(kept, caplog, keep):
    path = kept.folder / "state_0.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    assert refused(kept, caplog)


def test_a_state_with_a_flipped_bit_is_refused_unless_the_bit_means_nothing(kept, caplog):
    path = kept.folder / "state_0.npz"
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    count = 0
    for place in range(len(whole)):
        flawed = bytearray(whole)
        flawed[place] ^= 1 << draw.integers(8)
        path.write_bytes(flawed)
        if refused(kept, caplog):
            count += 1
        else:
            assert same(kept.load(0), STATE), f"byte {place} of {len(whole)}"
    assert count > len(whole) / 2


def test_a_state_with_a_flipped_bit_in_any_array_is_refused(kept, caplog):
    path = kept.folder / "state_0.npz"
    whole = path.read_bytes()
    for name, values in STATE.items():
        flawed = bytearray(whole)
        flawed[whole.index(b"\n" + values.tobytes(), whole.index(f"{name}.npy".encode())) + 1] ^= 1
        path.write_bytes(flawed)
        assert refused(kept, caplog), name


def test_a_state_with_an_array_that_is_said_to_be_shorter_than_it_is_is_refused(kept, caplog):
    path = kept.folder / "state_0.npz"
    kept.save(0, STATE | {"parameters": np.ones((2, 5000), np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"'shape': (2, 5000)", b"'shape': (1, 5000)"))
    assert path.read_bytes() != whole
    assert refused(kept, caplog)


def without(name):
    """A state that lacks an array."""
    arrays = {
        "stamp": np.array(restart.Resume(Path(), STAMP).stamp),
        "names": np.array(list(STATE)),
    } | STATE
    del arrays[name]
    return lambda path: np.savez(path, **arrays)


GARBAGE = {
    "nothing": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "text": lambda path: path.write_text("not a state\n" * 100),
    "an empty archive": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "an array without an archive": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no stamp": without("stamp"),
    "no names": without("names"),
    "an array less": without("parameters"),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused(kept, caplog, garbage):
    GARBAGE[garbage](kept.folder / "state_0.npz")
    assert refused(kept, caplog)


def test_a_state_of_pickled_objects_is_refused_and_nothing_in_it_runs(kept, caplog, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    arrays = {
        "stamp": np.array(kept.stamp),
        "names": np.array(["task"]),
        "task": np.array([Trap()], object),
    }
    np.savez(kept.folder / "state_0.npz", **arrays)
    assert refused(kept, caplog)
    assert not (tmp_path / "sprung").exists()


def refusal(folder, stamp=STAMP):
    """The sentence with which a process is told that it cannot hold the folder."""
    with pytest.raises(StudyError) as refused, restart.held(folder, stamp):
        pytest.fail("it is held")
    return str(refused.value)


def failing(number):
    """A system call that fails."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# States that were made with something else


def left_by(folder, stamp):
    """What a job with the stamp left when it was killed."""
    folder.mkdir(exist_ok=True)
    for first in (0, 2):
        restart.Resume(folder, stamp).save(first, STATE)
    (folder / "checkpoints.f4").write_bytes(bytes(100))
    (folder / "state_2.npz.part").write_bytes(b"PK")
    (folder / "lock").write_text("process 1 on another, slurm job none")


def test_a_jobs_own_states_are_taken_up_again(tmp_path, caplog):
    left_by(tmp_path / "resume", STAMP)
    with restart.held(tmp_path / "resume", STAMP) as kept:
        assert same(kept.load(0), STATE)
        assert same(kept.load(2), STATE)
    assert not caplog.messages


@pytest.mark.parametrize(
    "names", [["settings"], ["code"], ["versions"], ["data"], ["code", "data"]], ids=" and ".join
)
def test_a_state_made_with_something_else_is_refused_and_it_is_said_with_what(
    tmp_path, caplog, names
):
    left_by(tmp_path / "resume", STAMP | dict.fromkeys(names, "other"))
    with restart.held(tmp_path / "resume", STAMP) as kept:
        assert kept.load(0) is None
        assert kept.load(2) is None
    said = (
        f"{kept.folder}/state_0.npz was made with other {' and '.join(names)}, so it starts afresh"
    )
    assert caplog.messages == [said]


def test_what_lies_beside_a_foreign_state_goes_with_it(tmp_path):
    left_by(tmp_path / "resume", STAMP | {"settings": "other"})
    with restart.held(tmp_path / "resume", STAMP) as kept:
        assert [path.name for path in kept.folder.iterdir()] == ["lock"]


def test_a_state_of_which_not_even_the_stamp_can_be_read_is_left_to_be_refused(tmp_path, caplog):
    left_by(tmp_path / "resume", STAMP)
    (tmp_path / "resume" / "state_0.npz").write_bytes(b"PK")
    with restart.held(tmp_path / "resume", STAMP) as kept:
        assert refused(kept, caplog)
        assert same(kept.load(2), STATE)


def test_a_foreign_state_that_cannot_be_removed_is_said_in_a_sentence(tmp_path, monkeypatch):
    left_by(tmp_path / "resume", STAMP | {"settings": "other"})
    monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    assert "state_0.npz could not be written (Permission denied)" in refusal(tmp_path / "resume")


# The lock

HOLD = """
import sys, time
from pathlib import Path
from plasticity import resume
with resume.held(Path(sys.argv[1]), {}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
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
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_while_the_holder_lives_a_second_is_refused_and_told_who_it_is(holder, tmp_path):
    said = f"{tmp_path} is being worked on by process {holder.pid} on {platform.node()}, slurm job 1234: wait for it, or end it"
    assert refusal(tmp_path / "resume") == said


def test_once_the_holder_is_killed_the_next_one_holds_the_folder(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with restart.held(tmp_path / "resume", {}) as kept:
        said = f"process {os.getpid()} on {platform.node()}, slurm job {os.environ.get('SLURM_JOB_ID', 'none')}"
        assert (kept.folder / "lock").read_text() == said, "the former holder's name is gone"


def test_a_refused_second_changes_nothing(tmp_path):
    with restart.held(tmp_path / "resume", STAMP) as kept:
        kept.save(0, STATE)
        before = {path.name: path.read_bytes() for path in kept.folder.iterdir()}
        refusal(tmp_path / "resume", STAMP | {"code": "other"})
        assert {path.name: path.read_bytes() for path in kept.folder.iterdir()} == before


def test_the_folder_goes_when_all_went_well(tmp_path):
    with restart.held(tmp_path / "resume", STAMP) as kept:
        kept.save(0, STATE)
        (kept.folder / "checkpoints.f4").touch()
        (kept.folder / "state_0.npz.part").touch()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "failure", [StudyError("no space"), SystemExit(143), ZeroDivisionError()], ids=repr
)
def test_the_folder_stays_after_a_failure_and_can_be_taken_up_again(tmp_path, failure):
    def fail():
        with restart.held(tmp_path / "resume", STAMP) as kept:
            kept.save(0, STATE)
            raise failure

    with pytest.raises(type(failure)):
        fail()
    with restart.held(tmp_path / "resume", STAMP) as again:
        assert same(again.load(0), STATE)


def test_states_are_removed_before_what_they_count_on_and_the_lock_last(tmp_path, monkeypatch):
    removed, unlink = [], Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, *more: (removed.append(path.name), unlink(path, *more))
    )
    with restart.held(tmp_path / "resume", STAMP) as kept:
        for name in ("a.f4", "state_0.npz", "z.f4", "state_7.npz"):
            (kept.folder / name).touch()
    assert sorted(removed[:2]) == ["state_0.npz", "state_7.npz"]
    assert sorted(removed[2:4]) == ["a.f4", "z.f4"]
    assert removed[4:] == ["lock"]


def test_a_folder_that_cannot_be_removed_does_no_harm(tmp_path, monkeypatch):
    with restart.held(tmp_path / "resume", STAMP) as kept:
        kept.save(0, STATE)
        monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
    assert same(kept.load(0), STATE)


def test_a_lock_that_cannot_be_taken_is_warned_of_and_training_goes_on(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with restart.held(tmp_path / "resume", STAMP) as kept:
        kept.save(0, STATE)
    assert caplog.messages == [
        f"{kept.folder}/lock cannot be locked (No locks available): see to it that no second job makes the same"
    ]
    assert not kept.folder.exists()


def finish(folder):
    """What the holder does at its end."""
    (folder / "lock").unlink()
    folder.rmdir()


def hand_on(folder):
    """The holder is at its end, and a third process has begun."""
    finish(folder)
    folder.mkdir()
    (folder / "lock").write_text("process 3")


@pytest.mark.parametrize("meanwhile", [finish, hand_on])
def test_a_process_that_comes_just_as_the_holder_finishes_stops(tmp_path, monkeypatch, meanwhile):
    folder, flock = tmp_path / "resume", fcntl.flock

    def late(file, operation):
        meanwhile(folder)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert refusal(folder) == f"{tmp_path} was finished by another process just now: start again"
    assert not folder.exists() or (folder / "lock").read_text() == "process 3"


def test_a_process_that_comes_as_the_holder_removes_the_folder_stops(tmp_path, monkeypatch):
    mkdir = Path.mkdir
    monkeypatch.setattr(
        Path, "mkdir", lambda path, **options: (mkdir(path, **options), path.rmdir())
    )
    assert (
        refusal(tmp_path / "resume")
        == f"{tmp_path} was finished by another process just now: start again"
    )


def test_a_place_that_cannot_be_written_to_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    assert "resume/lock could not be written (Not a directory)" in refusal(
        tmp_path / "file" / "resume"
    )


def test_a_disk_that_is_full_before_the_first_state_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        platform, "node", failing(errno.ENOSPC)
    )  # asked as the holder's name is written
    assert "resume/lock could not be written (No space left on device): free space" in refusal(
        tmp_path / "resume"
    )


# Training that goes on

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=20, batch=10, epochs=2, tasks=4),
    Network("mlp", "relu", options={"width": 4, "depth": 1}),
    Optimizer("adam", options={"lr": 0.01}),
)
EVERYONE = [({"strength": strength}, seed) for strength in (0.01, 0.1) for seed in (0, 1, 2)]


@pytest.fixture
def job(data, tmp_path, monkeypatch):
    """``job(stop_after)`` trains in waves of two runs; a job that is stopped after so many tasks leaves its state behind."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.fitting(SETTING, data).named_parameters()
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
        with restart.held(folder / "resume", STAMP) as kept:
            rows = checkpoints.Rows(
                kept.folder / "checkpoints.f4", range(0, 4, 2), len(EVERYONE), shapes
            )
            values = chunks.train_in_waves(
                SETTING, "l2", EVERYONE, data, Training(), rows, kept, granted
            )
            return values | {f"row_{task}": rows.read(task) for task in rows.tasks}, list(learned)

    monkeypatch.setattr(trainer.Trainer, "learn", counted)
    return train


@pytest.fixture
def undisturbed(job, tmp_path):
    """What a job finds that is never stopped."""
    return job(folder=tmp_path / "undisturbed")[0]


def test_training_goes_on_after_the_last_task_that_was_finished(job, undisturbed, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=6)
    caplog.clear()
    found, learned = job()
    assert learned == [3, 4, 1, 2, 3, 4]
    assert [line for line in caplog.messages if line.startswith("going on")] == [
        "going on after task 4 of 4",
        "going on after task 2 of 4",
    ]
    assert same(found, undisturbed)


def tear_a_state(folder):
    path = folder / "state_2.npz"
    path.write_bytes(path.read_bytes()[:-50])


def remove_the_rows(folder):
    (folder / "checkpoints.f4").unlink()


def shorten_the_rows(folder):
    path = folder / "checkpoints.f4"
    path.write_bytes(path.read_bytes()[:-1])


HARMS = {
    tear_a_state: ("state_2.npz", [1, 2, 3, 4] * 2),
    remove_the_rows: ("checkpoints.f4", [1, 2, 3, 4] * 3),
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_training_starts_afresh_where_what_is_left_is_torn(
    job, undisturbed, tmp_path, caplog, harm
):
    name, again = HARMS[harm]
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=7)
    harm(tmp_path / "resume")
    caplog.clear()
    found, learned = job()
    assert learned == again
    assert [
        line
        for line in caplog.messages
        if f"{name} is torn" in line or f"{name} is truncated" in line
    ]
    assert same(found, undisturbed)


def test_rows_that_lack_their_end_are_refused(job, undisturbed, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=3)
    shorten_the_rows(tmp_path / "resume")
    found, learned = job()
    assert learned == [1, 2, 3, 4] * 3
    assert [line for line in caplog.messages if "checkpoints.f4 is truncated" in line]
    assert same(found, undisturbed)


def test_everything_that_goes_on_from_task_to_task_is_restored(data, monkeypatch):
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
    } < one.carried().keys()
    one.learner.task = 3
    for tensor in one.carried().values():
        tensor.copy_(torch.rand(tensor.shape) > 0.5)
    other.restore(one.state())
    assert other.learner.task == 3
    assert same(other.state(), one.state())


@pytest.mark.parametrize("runs", [1, 3, 6])
def test_a_wave_that_was_begun_is_finished_as_it_was_whatever_fits_by_then(job, undisturbed, runs):
    with pytest.raises(KeyboardInterrupt):
        job(stop_after=7)
    found, learned = job(runs=runs)
    assert learned[:1] == [4]
    assert learned[1:] == [1, 2, 3, 4] * {1: 2, 3: 1, 6: 1}[runs]
    assert same(found, undisturbed)


def test_waves_are_told_in_one_line_and_a_ensemble_that_fits_is_not_split(job, undisturbed, caplog):
    caplog.clear()
    assert same(job(runs=6)[0], undisturbed)
    assert not [line for line in caplog.messages if " chunks," in line]
    assert same(job(runs=2)[0], undisturbed)
    (line,) = [line for line in caplog.messages if " chunks," in line]
    assert "6 runs need about" in line
    assert line.endswith("training them in 3 chunks, with the same results")
