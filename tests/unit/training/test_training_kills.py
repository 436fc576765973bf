"""Training that is killed, stopped, started twice or out of space ends in the same bytes."""

import functools
import json
import os
import platform
import random
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forking import SCRIPTS, Forked
from tiers import slow_except

from plasticity.config.models import Setting
from plasticity.storage import netcdf
from plasticity.training import memory

ENTRY = SCRIPTS / "train.py"
TASKS, ARMS, SEEDS = 2, 3, 2
SETTING = {
    "problem": {
        "dataset": "tiny",
        "shift": "shuffle_labels",
        "samples": 48,
        "batch": 16,
        "epochs": 1,
        "tasks": TASKS,
    },
    "network": {"kind": "mlp", "width": 128, "depth": 2, "activation": "relu"},
    "optimizer": {"kind": "adam", "lr": 0.003},
}
LONGER = {"epochs": 4, "tasks": 5}  # so that a random time is likely to be within a task
RESULTS = ["checkpoints.nc", "outcomes.nc"]


@dataclass
class Job(Forked):
    """A job that trains an ensemble.

    Attributes:
        data: the prepared dataset.
        chunks: number of chunks that its memory limit leads to.
        problem: changes of the problem in `SETTING`.
    """

    data: Path
    chunks: int = 1
    problem: dict[str, int] = field(default_factory=dict)

    def argv(self):
        setting = SETTING | {"problem": SETTING["problem"] | self.problem}
        settings = {
            "setting": setting,
            "training": {"checkpoint_every": 1, "curve_points": 3, "precision": "float32"},
        }
        settings |= {
            "method": "l2_init",
            "arms": [{"strength": 0.01 * arm} for arm in range(ARMS)],
            "seeds": list(range(SEEDS)),
        }
        argv = [
            ENTRY,
            "--data",
            self.data,
            "--outcomes",
            self.folder / "outcomes.nc",
            "--checkpoints",
            self.folder / "checkpoints.nc",
        ]
        argv += ["--settings", json.dumps(settings)]
        if self.chunks > 1:
            need, at_once = (
                memory.per_run(Setting.of(setting), netcdf.read(self.data)),
                ARMS * SEEDS // self.chunks,
            )
            argv += [
                "--memory",
                next(mb for mb in range(10**6) if (mb * 10**6 - memory.BASE) // need == at_once),
            ]
        return argv


@pytest.fixture(scope="module")
def make(forks, data, tmp_path_factory):
    """Return a function that makes a new job, ``make(chunks, **problem)``."""
    path = tmp_path_factory.mktemp("data") / "tiny.nc"
    netcdf.write(data, path)
    return lambda chunks=1, **problem: Job(
        tmp_path_factory.mktemp("job"), forks, path, chunks, problem
    )


@pytest.fixture(scope="module")
def alone(make):
    """Return a function that runs an undisturbed job; the job and its seconds."""

    @functools.cache
    def train(chunks=1, **problem):
        job = make(chunks, **problem)
        pid, start = job.start(), time.monotonic()
        assert job.end(pid) == 0, job.text("printed")
        assert sorted(job.results) == RESULTS
        return job, time.monotonic() - start

    return train


@pytest.fixture(scope="module")
def expected(alone):
    """Return a function that gives the right results, for any number of chunks."""
    return lambda **problem: alone(**problem)[0].results


def learned(job):
    """Count the tasks that all processes of a job started, in all chunks."""
    return job.moments.count("learn")


def continued_after(job):
    """Return the tasks after which processes of the job continued."""
    return [int(task) for task in re.findall(r"going on after task (\d+) of", job.text("log"))]


# Undisturbed


@pytest.mark.parametrize("chunks", [1, 3])
def test_ensemble_is_trained_in_as_many_chunks_as_memory_requires(alone, chunks):
    job, _ = alone(chunks)
    assert learned(job) == chunks * TASKS
    assert ("training them in 3 chunks, with the same results" in job.text("log")) == (chunks == 3)


def test_chunks_do_not_change_bytes(alone, expected):
    assert alone(3)[0].results == expected()


# Killed


@pytest.mark.parametrize("moment", slow_except([0, 7, 14], range(20)))
@pytest.mark.parametrize("chunks", [1, 3])
def test_job_killed_at_random_times_ends_in_the_same_bytes(make, alone, expected, chunks, moment):
    draw, took = random.Random(100 * chunks + moment), alone(chunks, **LONGER)[1]
    job = make(chunks, **LONGER)
    for kill in [(moment + draw.random()) / 20, *(draw.random() for _ in range(draw.randrange(3)))]:
        pid = job.start()
        time.sleep(kill * took)
        os.kill(pid, signal.SIGKILL)
        if job.end(pid) == 0:  # it was faster than the undisturbed job
            break
    else:
        assert job.run() == 0, job.text("printed")
    assert job.results == expected(**LONGER)


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_job_killed_before_any_file_change_repeats_at_most_one_task(make, alone, expected, third):
    moments = alone(3)[0].moments
    first_removed = next(
        at for at, moment in enumerate(moments) if moment.startswith("os.remove state")
    )
    for at, moment in list(enumerate(moments))[third::3]:
        job = make(3)
        assert job.run(at=("", at)) == -signal.SIGKILL
        if at > first_removed:  # the remaining files are not needed any more
            assert {name: job.results[name] for name in RESULTS} == expected(), (
                f"killed before {moment} ({at})"
            )
        assert job.run() == 0, job.text("printed")
        assert job.results == expected(), f"killed before {moment} ({at})"
        assert at > first_removed or learned(job) <= 3 * TASKS + 1, f"killed before {moment} ({at})"


# A state has 1.4 MB in one chunk, and 0.46 MB in three. The rows grow to 0.9 MB in steps of
# 0.45 MB, and checkpoints.nc is larger.
AMID = {
    (1, 100_000): "resume/checkpoints.f4",
    (1, 900_000): "resume/state_0.npz.part",
    (1, 1_300_000): "resume/state_0.npz.part",
    (3, 300_000): "resume/state_0.npz.part",
    (3, 500_000): "resume/checkpoints.f4",
    (3, 800_000): "resume/checkpoints.f4",
    (3, 900_000): "checkpoints.nc.part",
    (3, 940_000): "checkpoints.nc.part",
}


@pytest.mark.parametrize(("chunks", "byte"), AMID)
def test_job_killed_during_a_write_ends_in_the_same_bytes(make, expected, chunks, byte):
    job = make(chunks)
    assert job.run(largest=byte, amid_a_write=True) == -signal.SIGXFSZ
    assert len(job.results[AMID[chunks, byte]]) == byte
    assert job.run() == 0, job.text("printed")
    assert job.results == expected()


def test_job_killed_at_every_second_task_finishes(make, expected):
    job = make(3)
    for _ in range(3 * TASKS - 1):
        assert job.run(at=("learn", 1)) == -signal.SIGKILL
    assert job.run(at=("learn", 1)) == 0
    assert job.results == expected()
    assert learned(job) == 2 * 3 * TASKS - 1
    assert continued_after(job) == [1, 2, *[2, 1], *[2, 2], *[2, 2, 1]]


@pytest.mark.parametrize("chunks", [1, 3])
def test_job_starts_a_chunk_over_if_its_saved_checkpoints_were_altered(make, expected, chunks):
    job = make(chunks)
    assert job.run(at=("learn", chunks * TASKS - 1)) == -signal.SIGKILL
    path = job.folder / "resume" / "checkpoints.f4"
    content = bytearray(path.read_bytes())
    content[0] ^= 1  # in the first run's checkpoint of task 0, which is not written again
    path.write_bytes(content)
    assert job.run() == 0, job.text("printed")
    assert f"{path} is truncated or altered, so it is ignored" in job.text("log")
    assert job.results == expected()


# Stopped


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_stopped_job_logs_it_leaves_no_partial_file_and_continues(make, alone, expected, third):
    for at, moment in list(enumerate(alone()[0].moments))[third::3]:
        job = make()
        assert job.run(at=("", at), number=signal.SIGTERM) == 128 + signal.SIGTERM, (
            f"stopped before {moment} ({at})"
        )
        assert "stopped by SIGTERM; finished tasks are saved: start snakemake again" in job.text(
            "log"
        )
        assert not list(job.root.rglob("*.part")), f"stopped before {moment} ({at})"
        assert not job.text("printed"), "no traceback, and no second word"
        assert job.run() == 0, job.text("printed")
        assert job.results == expected(), f"stopped before {moment} ({at})"


def test_job_stopped_during_a_write_continues_after_the_last_saved_task(make, expected):
    job = make()
    assert job.run(at=("open state_0.npz.part", 1), number=signal.SIGTERM) == 128 + signal.SIGTERM
    assert job.run() == 0
    assert continued_after(job) == [1]
    assert job.results == expected()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_job_stopped_during_a_task_exits_within_ten_seconds(make, number):
    job = make(epochs=10**5)
    pid = job.paused(at=("learn", 0))
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.1)
    start = time.monotonic()
    os.kill(pid, number)
    assert job.end(pid) == 128 + number
    assert time.monotonic() - start < 10
    assert f"stopped by {number.name}" in job.text("log")


def test_job_stopped_repeatedly_still_cleans_up(make, alone):
    moments = alone()[0].moments
    for moment in ("os.rename state_0.npz.part", "os.rename checkpoints.nc.part"):
        job = make()
        assert (
            job.run(at=("", moments.index(moment)), number=signal.SIGTERM, again=True)
            == 128 + signal.SIGTERM
        )
        assert not list(job.root.rglob("*.part"))
        assert job.text("log").count("stopped by") == 1
        assert not job.text("printed"), "and no traceback"


# Two at once


def test_second_process_names_the_first_and_does_not_disturb_it(make, expected):
    job = make()
    first = job.paused(at=("learn", 1))
    assert job.run(log="other.log") == 1
    sentence = (
        f"{job.folder} is being worked on by process {first} on {platform.node()}, slurm job "
    )
    assert job.text("printed").startswith(sentence), "and no traceback"
    assert job.text("printed").endswith(": wait for it, or end it\n")
    assert sentence in job.text("other.log")
    os.kill(first, signal.SIGCONT)
    assert job.end(first) == 0
    assert job.results == expected()


def test_second_process_keeps_the_log_of_the_first(make):
    job = make()
    first = job.paused(at=("learn", 1))
    before = job.text("log")
    assert job.run() == 1
    os.kill(first, signal.SIGCONT)
    assert job.end(first) == 0
    assert job.text("log").startswith(before)
    assert "\0" not in job.text("log")


def test_second_process_continues_after_the_first_was_killed(make, expected):
    job = make()
    first = job.paused(at=("learn", 1))
    assert job.run() == 1
    os.kill(first, signal.SIGKILL)
    assert job.end(first) == -signal.SIGKILL
    assert job.run() == 0
    assert continued_after(job) == [1]
    assert job.results == expected()


def test_many_processes_at_once_train_or_refuse_and_results_are_right(make, expected):
    job = make()
    pids = []
    for _ in range(20):  # for longer than one takes, so that some start as another ends
        pids.append(job.start())
        time.sleep(0.02)
    statuses = [job.end(pid) for pid in pids]
    assert set(statuses) == {0, 1}
    refusals = re.findall(
        "is being worked on by process|is being worked on by another process|"
        "was finished by another process just now",
        job.text("printed"),
    )
    assert len(refusals) == statuses.count(1)
    assert "Traceback" not in job.text("printed")
    assert job.results == expected()


# A full disk


@pytest.mark.parametrize(("chunks", "byte"), AMID)
def test_full_disk_is_reported_and_the_job_can_continue_later(make, expected, chunks, byte):
    job = make(chunks)
    assert job.run(largest=byte) == 1
    path = job.folder / AMID[chunks, byte].removesuffix(".part")
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or give yourself write permission.*\n",
        job.text("printed"),
    )
    assert not list(job.root.rglob("*.part"))
    assert not set(RESULTS) & job.results.keys()
    assert job.run() == 0, job.text("printed")
    assert job.results == expected()


def test_job_continues_after_a_full_disk_from_its_last_task(make, expected):
    job = make(3)
    assert job.run(largest=500_000) == 1  # the second task's rows do not fit
    assert job.run() == 0
    assert continued_after(job) == [1]
    assert learned(job) == 3 * TASKS
    assert job.results == expected()


def test_full_disk_is_reported_even_if_the_log_cannot_be_written(make):
    job = make()
    (job.root / "log").write_text("x" * 2000)
    assert job.run(largest=2000) == 1
    path = job.folder / "resume" / "checkpoints.f4"
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or give yourself write permission.*\n",
        job.text("printed"),
    )
