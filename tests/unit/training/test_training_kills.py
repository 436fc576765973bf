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
LONGER = {"epochs": 4, "tasks": 5}  # so that a random moment is likely to be within a task
RESULTS = ["checkpoints.nc", "outcomes.nc"]


@dataclass
class Job(Forked):
    """An ensemble to be trained.

    Attributes:
        data: the prepared dataset.
        waves: how many the memory that it is granted makes of it.
        problem: changes to that of `SETTING`.
    """

    data: Path
    waves: int = 1
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
        if self.waves > 1:
            need, at_once = (
                memory.per_run(Setting.of(setting), netcdf.read(self.data)),
                ARMS * SEEDS // self.waves,
            )
            argv += [
                "--memory",
                next(mb for mb in range(10**6) if (mb * 10**6 - memory.BASE) // need == at_once),
            ]
        return argv


@pytest.fixture(scope="module")
def make(forks, data, tmp_path_factory):
    """``make(waves, **problem)`` is a job of which nothing has been trained."""
    path = tmp_path_factory.mktemp("data") / "tiny.nc"
    netcdf.write(data, path)
    return lambda waves=1, **problem: Job(
        tmp_path_factory.mktemp("job"), forks, path, waves, problem
    )


@pytest.fixture(scope="module")
def alone(make):
    """A job that was left alone, and how long it took."""

    @functools.cache
    def train(waves=1, **problem):
        job = make(waves, **problem)
        pid, start = job.start(), time.monotonic()
        assert job.end(pid) == 0, job.text("said")
        assert sorted(job.results) == RESULTS
        return job, time.monotonic() - start

    return train


@pytest.fixture(scope="module")
def expected(alone):
    """The results that a job must come to, in however many waves."""
    return lambda **problem: alone(**problem)[0].results


def learned(job):
    """How many times a task was new_trainer by a wave, by all of a job's processes."""
    return job.moments.count("learn")


def gone_on(job):
    """After which tasks the job's processes went on."""
    return [int(task) for task in re.findall(r"going on after task (\d+) of", job.text("log"))]


# Left alone


@pytest.mark.parametrize("waves", [1, 3])
def test_ensemble_is_trained_in_as_many_chunks_as_memory_requires(alone, waves):
    job, _ = alone(waves)
    assert learned(job) == waves * TASKS
    assert ("training them in 3 chunks, with the same results" in job.text("log")) == (waves == 3)


def test_chunks_do_not_change_bytes(alone, expected):
    assert alone(3)[0].results == expected()


# Killed


@pytest.mark.parametrize("moment", slow_except([0, 7, 14], range(20)))
@pytest.mark.parametrize("waves", [1, 3])
def test_job_killed_at_random_times_ends_in_the_same_bytes(make, alone, expected, waves, moment):
    draw, took = random.Random(100 * waves + moment), alone(waves, **LONGER)[1]
    job = make(waves, **LONGER)
    for kill in [(moment + draw.random()) / 20, *(draw.random() for _ in range(draw.randrange(3)))]:
        pid = job.start()
        time.sleep(kill * took)
        os.kill(pid, signal.SIGKILL)
        if job.end(pid) == 0:  # it was quicker than the one that was left alone
            break
    else:
        assert job.run() == 0, job.text("said")
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
        if at > first_removed:  # what is left was not needed any more
            assert {name: job.results[name] for name in RESULTS} == expected(), (
                f"killed before {moment} ({at})"
            )
        assert job.run() == 0, job.text("said")
        assert job.results == expected(), f"killed before {moment} ({at})"
        assert at > first_removed or learned(job) <= 3 * TASKS + 1, f"killed before {moment} ({at})"


# in one wave a state has 1.4 MB, in three it has 0.46 MB; the rows grow to 0.9 MB in steps of 0.45 MB, and checkpoints.nc is larger
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


@pytest.mark.parametrize(("waves", "byte"), AMID)
def test_job_killed_during_a_write_ends_in_the_same_bytes(make, expected, waves, byte):
    job = make(waves)
    assert job.run(largest=byte, amid_a_write=True) == -signal.SIGXFSZ
    assert len(job.results[AMID[waves, byte]]) == byte
    assert job.run() == 0, job.text("said")
    assert job.results == expected()


def test_job_killed_at_every_second_task_finishes(make, expected):
    job = make(3)
    for _ in range(3 * TASKS - 1):
        assert job.run(at=("learn", 1)) == -signal.SIGKILL
    assert job.run(at=("learn", 1)) == 0
    assert job.results == expected()
    assert learned(job) == 2 * 3 * TASKS - 1
    assert gone_on(job) == [1, 2, *[2, 1], *[2, 2], *[2, 2, 1]]


# Told to stop


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_stopped_job_logs_it_leaves_no_partial_file_and_continues(make, alone, expected, third):
    for at, moment in list(enumerate(alone()[0].moments))[third::3]:
        job = make()
        assert job.run(at=("", at), number=signal.SIGTERM) == 128 + signal.SIGTERM, (
            f"told before {moment} ({at})"
        )
        assert "told to stop (SIGTERM); what is finished stays: start snakemake again" in job.text(
            "log"
        )
        assert not list(job.root.rglob("*.part")), f"told before {moment} ({at})"
        assert not job.text("said"), "no traceback, and no second word"
        assert job.run() == 0, job.text("said")
        assert job.results == expected(), f"told before {moment} ({at})"


def test_job_stopped_during_a_write_continues_after_the_last_saved_task(make, expected):
    job = make()
    assert job.run(at=("open state_0.npz.part", 1), number=signal.SIGTERM) == 128 + signal.SIGTERM
    assert job.run() == 0
    assert gone_on(job) == [1]
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
    assert f"told to stop ({number.name})" in job.text("log")


def test_job_stopped_repeatedly_still_cleans_up(make, alone):
    moments = alone()[0].moments
    for moment in ("os.rename state_0.npz.part", "os.rename checkpoints.nc.part"):
        job = make()
        assert (
            job.run(at=("", moments.index(moment)), number=signal.SIGTERM, again=True)
            == 128 + signal.SIGTERM
        )
        assert not list(job.root.rglob("*.part"))
        assert job.text("log").count("told to stop") == 1
        assert not job.text("said"), "and no traceback"


# Two at once


def test_second_process_names_the_first_and_does_not_disturb_it(make, expected):
    job = make()
    first = job.paused(at=("learn", 1))
    assert job.run(log="other.log") == 1
    sentence = (
        f"{job.folder} is being worked on by process {first} on {platform.node()}, slurm job "
    )
    assert job.text("said").startswith(sentence), "and no traceback"
    assert job.text("said").endswith(": wait for it, or end it\n")
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
    assert gone_on(job) == [1]
    assert job.results == expected()


def test_many_processes_at_once_train_or_refuse_and_results_are_right(make, expected):
    job = make()
    pids = []
    for _ in range(20):  # for longer than one of them takes, so that some come as another finishes
        pids.append(job.start())
        time.sleep(0.02)
    statuses = [job.end(pid) for pid in pids]
    assert set(statuses) == {0, 1}
    refusals = re.findall(
        "is being worked on by process|is being worked on by another process|was finished by another process just now",
        job.text("said"),
    )
    assert len(refusals) == statuses.count(1)
    assert "Traceback" not in job.text("said")
    assert job.results == expected()


# A full disk


@pytest.mark.parametrize(("waves", "byte"), AMID)
def test_full_disk_is_reported_and_the_job_can_continue_later(make, expected, waves, byte):
    job = make(waves)
    assert job.run(largest=byte) == 1
    path = job.folder / AMID[waves, byte].removesuffix(".part")
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or mend its permissions\n",
        job.text("said"),
    )
    assert not list(job.root.rglob("*.part"))
    assert not set(RESULTS) & job.results.keys()
    assert job.run() == 0, job.text("said")
    assert job.results == expected()


def test_job_continues_after_a_full_disk_from_its_last_task(make, expected):
    job = make(3)
    assert job.run(largest=500_000) == 1  # the second task's rows do not fit
    assert job.run() == 0
    assert gone_on(job) == [1]
    assert learned(job) == 3 * TASKS
    assert job.results == expected()


def test_full_disk_is_reported_even_if_the_log_cannot_be_written(make):
    job = make()
    (job.root / "log").write_text("x" * 2000)
    assert job.run(largest=2000) == 1
    path = job.folder / "resume" / "checkpoints.f4"
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or mend its permissions\n",
        job.text("said"),
    )
