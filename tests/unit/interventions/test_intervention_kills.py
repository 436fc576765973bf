"""A killed, stopped or restarted intervention job ends with the bytes of a normal job."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from experiments import train
from forking import SCRIPTS, Forked
from tiers import slow_except

from plasticity.storage import netcdf

ENTRY = SCRIPTS / "intervene.py"
RESULT, STATE = "interventions.nc", "resume_interventions"
ARMS = 2
SETTINGS = {
    "treatments": [
        {"name": "none", "treatment": "none", "strength": None, "family": "control"},
        {
            "name": "shrink(strength=0.5)",
            "treatment": "shrink",
            "strength": 0.5,
            "family": "restoring",
        },
        {"name": "fresh", "treatment": "fresh", "strength": None, "family": "control"},
    ],
    "tasks": [1, 2],
    "curvature": {
        "operators": {"fisher": {}},
        "samples": 9,
        "evaluation_points": ["next"],
        "every": 1,
    },
}
PARTS = ARMS * len(SETTINGS["tasks"])


@dataclass
class Job(Forked):
    """A job that treats an ensemble.

    Attributes:
        data: the prepared dataset.
        checkpoints: of the ensemble.
    """

    data: Path
    checkpoints: Path

    def argv(self):
        argv = [ENTRY, "--data", self.data, "--checkpoints", self.checkpoints]
        argv += ["--output", self.folder / RESULT, "--settings", json.dumps(SETTINGS)]
        return argv


@pytest.fixture(scope="module")
def make(forks, data, tmp_path_factory):
    """Return a function that makes a new job."""
    root = tmp_path_factory.mktemp("trained")
    netcdf.write(data, root / "tiny.nc")
    train(root, data, "l2", tasks=(1, 2))

    def make_job():
        folder = tmp_path_factory.mktemp("job")
        return Job(folder, forks, root / "tiny.nc", root / "checkpoints.nc")

    return make_job


@pytest.fixture(scope="module")
def undisturbed(make):
    """Run a job without interruption; return it and its seconds."""
    job, start = make(), time.monotonic()
    assert job.run() == 0, job.text("printed")
    return job, time.monotonic() - start


@pytest.fixture(scope="module")
def expected(undisturbed):
    """Return the only file that a job must leave."""
    assert list(undisturbed[0].results) == [RESULT]
    return undisturbed[0].results


def test_job_trains_all_copies_of_an_arm_and_a_task_together(undisturbed):
    assert undisturbed[0].moments.count("learn") == PARTS


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_job_killed_before_any_file_event_ends_in_equal_bytes_and_repeats_at_most_one_part(
    make, undisturbed, expected, third
):
    events = undisturbed[0].moments
    first_removal = next(
        index for index, event in enumerate(events) if event.startswith("os.remove state")
    )
    file_events = [index for index, event in enumerate(events) if event not in ("learn", "spectra")]
    for index in file_events[third::3]:
        killed_before = f"killed before {events[index]} ({index})"
        job = make()
        assert job.run(at=("", index)) == -signal.SIGKILL
        assert job.run() == 0, job.text("printed")
        assert job.results == expected, killed_before
        if index <= first_removal:
            assert job.moments.count("learn") <= PARTS + 1, killed_before


@pytest.mark.parametrize("seed", slow_except([0], range(4)))
def test_job_killed_at_random_times_ends_in_equal_bytes(make, undisturbed, expected, seed):
    draw, job = random.Random(seed), make()
    for _ in range(3):
        pid = job.start()
        time.sleep(draw.random() * undisturbed[1])
        os.kill(pid, signal.SIGKILL)
        if job.end(pid) == 0:
            break
    else:
        assert job.run() == 0, job.text("printed")
    assert job.results == expected


def test_stopped_job_logs_the_signal_and_continues_after_its_last_finished_part(make, expected):
    job = make()
    assert job.run(at=("learn", 2), number=signal.SIGTERM) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; finished tasks are saved" in job.text("log")
    assert not list(job.root.rglob("*.part"))
    assert not job.text("printed"), "no traceback and no other message"
    assert job.run() == 0, job.text("printed")
    assert job.moments.count("learn") == PARTS + 1
    assert job.results == expected


def test_job_without_space_says_so_leaves_no_part_of_a_file_and_finishes_later(make, expected):
    job = make()
    assert job.run(largest=20_000) == 1
    assert "File too large" in job.text("printed") or "space" in job.text("printed")
    assert RESULT not in job.results
    assert job.run() == 0, job.text("printed")
    assert job.results == expected


def test_job_ignores_a_damaged_state(make, expected):
    job = make()
    assert job.run(at=("learn", PARTS - 1)) == -signal.SIGKILL
    state = min((job.folder / STATE).glob("state_*.npz"))
    state.write_bytes(state.read_bytes()[:-20])
    assert job.run() == 0, job.text("printed")
    assert f"{state} is truncated or damaged" in job.text("log")
    assert job.results == expected
