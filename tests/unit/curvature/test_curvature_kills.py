"""Curvature that is killed at any moment, told to stop or started twice ends in the bytes of a job that was left alone."""

import json
import os
import platform
import random
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import SCRIPTS, Forked
from tiers import slow_except

from plasticity.config.models import Setting
from plasticity.models import architecture
from plasticity.provenance import code_digest
from plasticity.storage import netcdf
from plasticity.storage.checkpoints import Rows, write

ENTRY = SCRIPTS / "curvature.py"
ARMS, SEEDS, TASKS = ["none", "l2(strength=1)"], [0, 1], 3
SETTING = {
    "problem": {
        "dataset": "tiny",
        "shift": "shuffle_labels",
        "samples": 30,
        "batch": 5,
        "epochs": 1,
        "tasks": TASKS,
    },
    "network": {"kind": "mlp", "width": 8, "depth": 1, "activation": "relu"},
    "optimizer": {"kind": "adam", "lr": 0.003},
}
CURVATURE = {
    "operators": {
        "fisher": {},
        "hessian": {"exact_up_to": 1, "steps": 4, "probes": 2, "blocks": ["all"]},
    },
    "samples": 9,
    "moments": ["old", "new"],
    "every": 1,
}
SPECTRA = (
    2 * len(ARMS) * (1 + len(SEEDS))
)  # of a task: at both moments, of each arm's runs together, and one by one
RESULT, STATE = "measures.nc", "resume_curvature"


@dataclass
class Job(Forked):
    """An ensemble to be measured.

    Attributes:
        data: the prepared dataset.
        checkpoints: of the ensemble.
        curvature: changes to `CURVATURE`.
        code: that it was planned with.
    """

    data: Path
    checkpoints: Path
    curvature: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    def argv(self):
        argv = [
            ENTRY,
            "--data",
            self.data,
            "--checkpoints",
            self.checkpoints,
            "--output",
            self.folder / RESULT,
        ]
        return [
            *argv,
            "--settings",
            json.dumps(CURVATURE | self.curvature),
            "--code",
            json.dumps(self.code),
        ]


def drawn(path, data, seed):
    """Checkpoints of networks that were drawn and not trained."""
    setting = Setting.of(SETTING)
    network = architecture.fitting(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    rows = Rows(path.with_suffix(".rows"), range(TASKS), len(ARMS) * len(SEEDS), shapes)
    for task in range(TASKS):
        members = [
            architecture.initial(network, setting.network, seed + member, task)
            for member in range(len(ARMS) * len(SEEDS))
        ]
        rows.write(
            0,
            task,
            torch.stack(
                [torch.cat([tensor.flatten() for tensor in one.values()]) for one in members]
            ).float(),
        )
    write(path, rows, ARMS, SEEDS, {"settings": json.dumps({"setting": SETTING})})
    return path


@pytest.fixture(scope="module")
def make(forks, data, tmp_path_factory):
    """``make()`` is a job of which nothing has been measured; `other` changes what it is made of."""
    root = tmp_path_factory.mktemp("made")
    netcdf.write(data, root / "tiny.nc")
    netcdf.write(data.assign(image=data["image"] // 2), root / "other.nc")
    checkpoints = {
        name: drawn(root / f"{name}_checkpoints.nc", data, seed)
        for name, seed in (("first", 0), ("second", 50))
    }
    return lambda data="tiny", of="first", **more: Job(
        tmp_path_factory.mktemp("job"), forks, root / f"{data}.nc", checkpoints[of], **more
    )


@pytest.fixture(scope="module")
def alone(make):
    """A job that was left alone."""
    job = make()
    assert job.run() == 0, job.text("said")
    return job


@pytest.fixture(scope="module")
def expected(alone):
    """The one file that a job must come to."""
    assert list(alone.results) == [RESULT]
    return alone.results


def gone_on(job):
    """After how many tasks the job's processes went on."""
    return [
        int(count)
        for count in re.findall(rf"going on after task (\d+) of {TASKS}", job.text("log"))
    ]


def test_a_job_keeps_each_task_that_it_measured_and_nothing_at_its_end(alone, expected):
    moments = alone.moments
    assert moments.count("spectra") == TASKS * SPECTRA
    assert [moment for moment in moments if moment.startswith("os.rename")] == [
        *(f"os.rename state_{task}.npz.part" for task in range(TASKS)),
        f"os.rename {RESULT}.part",
    ]
    assert f"os.rmdir {STATE}" in moments


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_killed_before_any_change_of_a_file_it_ends_in_the_same_bytes_and_at_most_one_task_is_done_twice(
    make, alone, expected, third
):
    moments = alone.moments
    first_removed = next(
        at for at, moment in enumerate(moments) if moment.startswith("os.remove state")
    )
    for at in [at for at, moment in enumerate(moments) if moment != "spectra"][third::3]:
        job = make()
        assert job.run(at=("", at)) == -signal.SIGKILL
        assert job.run() == 0, job.text("said")
        assert job.results == expected, f"killed before {moments[at]} ({at})"
        assert at > first_removed or job.moments.count("spectra") <= (TASKS + 1) * SPECTRA, (
            f"killed before {moments[at]} ({at})"
        )


@pytest.mark.parametrize("moment", slow_except([0], range(4)))
def test_killed_at_random_moments_it_ends_in_the_same_bytes(make, expected, moment):
    draw, job = random.Random(moment), make()
    for _ in range(3):
        pid = job.start()
        time.sleep(draw.random())
        os.kill(pid, signal.SIGKILL)
        if job.end(pid) == 0:
            break
    else:
        assert job.run() == 0, job.text("said")
    assert job.results == expected


@pytest.mark.parametrize(
    "number",
    slow_except([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]),
    ids=lambda number: number.name,
)
def test_told_to_stop_between_tasks_or_amid_one_it_says_so_and_goes_on_from_there(
    make, expected, number
):
    for spectra, tasks in {1: 0, SPECTRA: 1, SPECTRA + 3: 1, 2 * SPECTRA: 2}.items():
        job = make()
        assert job.run(at=("spectra", spectra), number=number) == 128 + number
        assert (
            f"stopped by {number.name}; finished tasks are saved: start snakemake again"
            in job.text("log")
        )
        assert not list(job.root.rglob("*.part"))
        assert not job.text("said"), "no traceback, and no second word"
        assert sorted(job.results) == sorted(
            [f"{STATE}/lock", *(f"{STATE}/state_{task}.npz" for task in range(tasks))]
        )
        assert job.run() == 0, job.text("said")
        assert gone_on(job) == [tasks] * bool(tasks)
        assert job.moments.count("spectra") == spectra + 1 + (TASKS - tasks) * SPECTRA
        assert job.results == expected


def test_a_state_that_is_torn_is_measured_again(make, expected):
    job = make()
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    path = job.folder / STATE / "state_0.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert job.run() == 0, job.text("said")
    assert f"{path} is truncated" in job.text("log")
    assert job.moments.count("spectra") == 2 * SPECTRA + 1 + 2 * SPECTRA
    assert job.results == expected


def planned():
    """The code of the entry as its rule would plan it."""
    return code_digest.code_digest(ENTRY, [])


OTHERS = {
    "settings": {"curvature": {"samples": 8}},
    "data": {"data": "other"},
    "checkpoints": {"of": "second"},
    "code": {"code": planned},
}


@pytest.mark.parametrize("what", slow_except(["settings", "checkpoints"], OTHERS))
def test_a_state_that_was_made_of_something_else_is_refused_in_a_sentence_and_nothing_of_it_is_in_the_result(
    make, what
):
    options = {name: value() if callable(value) else value for name, value in OTHERS[what].items()}
    undisturbed, job, changed = make(**options), make(), make(**options)
    assert undisturbed.run() == 0, undisturbed.text("said")
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    changed.root = job.root
    assert changed.run() == 0, changed.text("said")
    said = what if what in ("settings", "code") else "inputs"
    assert f"state_0.npz was saved with other {said}, so the job starts over" in changed.text("log")
    assert changed.results == undisturbed.results


def test_a_second_process_says_in_a_sentence_who_measures_and_the_first_ends_as_if_it_had_been_alone(
    make, expected
):
    job = make()
    first = job.paused(at=("spectra", SPECTRA))
    assert job.run(log="other.log") == 1
    assert job.text("said").startswith(
        f"{job.folder} is being worked on by process {first} on {platform.node()}, slurm job "
    )
    assert job.text("said").endswith(": wait for it, or end it\n"), "and no traceback"
    os.kill(first, signal.SIGCONT)
    assert job.end(first) == 0
    assert job.results == expected


def test_a_full_disk_is_said_in_a_sentence_and_with_space_again_it_goes_on(make, expected):
    job = make()
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    size = len(job.results[f"{STATE}/state_1.npz"]) - 1  # the third task's has as much
    assert job.run(largest=size) == 1
    path = job.folder / STATE / "state_2.npz"
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or give yourself write permission.*\n",
        job.text("said"),
    )
    assert job.run() == 0, job.text("said")
    assert gone_on(job) == [2, 2]
    assert job.results == expected
