"""Check that a killed, stopped or doubled curvature job ends with the bytes of a normal job."""

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
from forking import SCRIPTS, Forked
from tiers import slow_except

from plasticity.config.models import Setting
from plasticity.models import architecture, ensemble
from plasticity.provenance import code_digest
from plasticity.storage import netcdf
from plasticity.storage.checkpoints import CheckpointRows, write

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
    "evaluation_points": ["previous", "next"],
    "every": 1,
}
# Calls of `spectra` per task: at both evaluation points and for each arm, one call for the Fisher
# of all runs and one for the Hessian of each run.
SPECTRA = 2 * len(ARMS) * (1 + len(SEEDS))
RESULT, STATE = "measures.nc", "resume_curvature"


@dataclass
class Job(Forked):
    """A job that measures an ensemble.

    Attributes:
        data: the prepared dataset.
        checkpoints: of the ensemble.
        curvature: changes to `CURVATURE`.
        code: digests of the code that the job is planned with.
    """

    data: Path
    checkpoints: Path
    curvature: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    def argv(self):
        paths = {
            "--data": self.data,
            "--checkpoints": self.checkpoints,
            "--output": self.folder / RESULT,
        }
        texts = {
            "--settings": json.dumps(CURVATURE | self.curvature),
            "--code": json.dumps(self.code),
        }
        return [ENTRY, *(part for option in (paths | texts).items() for part in option)]


def write_checkpoints(path, data, first_seed):
    """Write checkpoints of untrained networks."""
    setting = Setting.of(SETTING)
    network = architecture.build_for(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    runs = len(ARMS) * len(SEEDS)
    rows = CheckpointRows(path.with_suffix(".rows"), range(TASKS), runs, shapes)
    for task in range(TASKS):
        drawn = [
            architecture.draw_initial(network, setting.network, first_seed + run, task)
            for run in range(runs)
        ]
        rows.write(0, task, ensemble.rows(drawn).float())
    write(path, rows, ARMS, SEEDS, {"settings": json.dumps({"setting": SETTING})})
    return path


@pytest.fixture(scope="module")
def make(forks, data, tmp_path_factory):
    """Return a function that builds jobs; its arguments choose inputs and settings."""
    root = tmp_path_factory.mktemp("made")
    netcdf.write(data, root / "tiny.nc")
    netcdf.write(data.assign(image=data["image"] // 2), root / "other.nc")
    checkpoints = {
        name: write_checkpoints(root / f"{name}_checkpoints.nc", data, first_seed)
        for name, first_seed in (("first", 0), ("second", 50))
    }

    def make_job(data="tiny", ensemble="first", **options):
        folder = tmp_path_factory.mktemp("job")
        return Job(folder, forks, root / f"{data}.nc", checkpoints[ensemble], **options)

    return make_job


@pytest.fixture(scope="module")
def undisturbed(make):
    """Run a job without interruption."""
    job = make()
    assert job.run() == 0, job.text("printed")
    return job


@pytest.fixture(scope="module")
def expected(undisturbed):
    """Return the only file that a job must leave."""
    assert list(undisturbed.results) == [RESULT]
    return undisturbed.results


def resumed_after(job):
    """List after how many tasks the processes of a job resumed."""
    matches = re.findall(rf"resuming after task (\d+) of {TASKS}", job.text("log"))
    return [int(count) for count in matches]


def test_job_saves_each_task_and_removes_the_states_at_its_end(undisturbed, expected):
    events = undisturbed.moments
    assert events.count("spectra") == TASKS * SPECTRA
    assert [event for event in events if event.startswith("os.rename")] == [
        *(f"os.rename state_{task}.npz.part" for task in range(TASKS)),
        f"os.rename {RESULT}.part",
    ]
    assert f"os.rmdir {STATE}" in events


@pytest.mark.parametrize("third", slow_except([0], range(3)))
def test_job_killed_before_any_file_event_ends_in_equal_bytes_and_repeats_at_most_one_task(
    make, undisturbed, expected, third
):
    events = undisturbed.moments
    first_removal = next(
        index for index, event in enumerate(events) if event.startswith("os.remove state")
    )
    file_events = [index for index, event in enumerate(events) if event != "spectra"]
    for index in file_events[third::3]:
        killed_before = f"killed before {events[index]} ({index})"
        job = make()
        assert job.run(at=("", index)) == -signal.SIGKILL
        assert job.run() == 0, job.text("printed")
        assert job.results == expected, killed_before
        if index <= first_removal:
            assert job.moments.count("spectra") <= (TASKS + 1) * SPECTRA, killed_before


@pytest.mark.parametrize("seed", slow_except([0], range(4)))
def test_job_killed_at_random_times_ends_in_equal_bytes(make, expected, seed):
    draw, job = random.Random(seed), make()
    for _ in range(3):
        pid = job.start()
        time.sleep(draw.random())
        os.kill(pid, signal.SIGKILL)
        if job.end(pid) == 0:
            break
    else:
        assert job.run() == 0, job.text("printed")
    assert job.results == expected


@pytest.mark.parametrize(
    "number",
    slow_except([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]),
    ids=lambda number: number.name,
)
def test_stopped_job_logs_the_signal_and_resumes_after_its_last_finished_task(
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
        assert not job.text("printed"), "no traceback and no other message"
        states = [f"{STATE}/state_{task}.npz" for task in range(tasks)]
        assert sorted(job.results) == sorted([f"{STATE}/lock", *states])
        assert job.run() == 0, job.text("printed")
        assert resumed_after(job) == [tasks] * bool(tasks)
        assert job.moments.count("spectra") == spectra + 1 + (TASKS - tasks) * SPECTRA
        assert job.results == expected


def test_truncated_state_is_measured_again(make, expected):
    job = make()
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    path = job.folder / STATE / "state_0.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert job.run() == 0, job.text("printed")
    assert f"{path} is truncated" in job.text("log")
    assert job.moments.count("spectra") == 2 * SPECTRA + 1 + 2 * SPECTRA
    assert job.results == expected


def planned_code():
    """Compute the digests of the entry as its rule does."""
    return code_digest.code_digest(ENTRY, [])


CHANGES = {
    "settings": {"curvature": {"samples": 8}},
    "data": {"data": "other"},
    "checkpoints": {"ensemble": "second"},
    "code": {"code": planned_code},
}


@pytest.mark.parametrize("change", slow_except(["settings", "checkpoints"], CHANGES))
def test_state_of_other_inputs_is_discarded_with_a_warning(make, change):
    options = {
        name: value() if callable(value) else value for name, value in CHANGES[change].items()
    }
    undisturbed, job, changed = make(**options), make(), make(**options)
    assert undisturbed.run() == 0, undisturbed.text("printed")
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    changed.root = job.root
    assert changed.run() == 0, changed.text("printed")
    stamp = change if change in ("settings", "code") else "inputs"
    warning = f"state_0.npz was saved with other {stamp}, so the job starts over"
    assert warning in changed.text("log")
    assert changed.results == undisturbed.results


def test_second_process_names_the_holder_of_the_lock_and_the_first_is_not_disturbed(make, expected):
    job = make()
    first = job.paused(at=("spectra", SPECTRA))
    assert job.run(log="other.log") == 1
    assert job.text("printed").startswith(
        f"{job.folder} is being worked on by process {first} on {platform.node()}, slurm job "
    )
    assert job.text("printed").endswith(": wait for it, or end it\n"), "and no traceback"
    os.kill(first, signal.SIGCONT)
    assert job.end(first) == 0
    assert job.results == expected


def test_full_disk_gives_one_message_and_the_job_resumes_once_there_is_space(make, expected):
    job = make()
    assert job.run(at=("spectra", 2 * SPECTRA)) == -signal.SIGKILL
    size = len(job.results[f"{STATE}/state_1.npz"]) - 1  # all states have the same size
    assert job.run(largest=size) == 1
    path = job.folder / STATE / "state_2.npz"
    assert re.fullmatch(
        rf"{path} could not be written \(.+\): free space or give yourself write permission.*\n",
        job.text("printed"),
    )
    assert job.run() == 0, job.text("printed")
    assert resumed_after(job) == [2, 2]
    assert job.results == expected
