"""Chunks of an ensemble: whatever fits into memory, results are equal to the bit."""

import gc
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest

from plasticity.config.models import Network, Optimizer, Problem, Setting, Training
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.storage.checkpoints import CheckpointRows
from plasticity.storage.restart import RestartStates
from plasticity.training import chunks, memory
from plasticity.training.trainer import Trainer

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=30, batch=7, epochs=2, tasks=3),
    Network("mlp", "relu", options={"width": 11, "depth": 2}),
    Optimizer("adam", options={"lr": 0.003}),
)
RUNS = [
    ({"strength": strength}, seed) for strength in (0.01, 1e30) for seed in (0, 1, 2, 3)
]  # half of them diverge
TASKS = [0, 2]


class Stopping(RestartStates):
    """Saved states of a job that is interrupted after `left` of them."""

    left = 10**6

    def save(self, first, state):
        super().save(first, state)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def job(data, tmp_path, monkeypatch):
    """Train the ensemble where `hold` runs fit into memory; outcomes, rows and sizes of chunks."""

    def run(hold, folder="resume", stop_after=None):
        restart = Stopping(tmp_path / folder, {})
        restart.left = stop_after or restart.left
        sizes = []

        def create(setting, method, runs, **kwargs):
            sizes.append(len(runs))
            return Trainer(setting, method, runs, **kwargs)

        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in architecture.build_for(SETTING, data).named_parameters()
        }
        restart.folder.mkdir(exist_ok=True)
        rows = CheckpointRows(restart.folder / "rows.f4", TASKS, len(RUNS), shapes)
        monkeypatch.setattr(chunks, "Trainer", create)
        limit = memory.BASE + data.nbytes + int(hold * memory.per_run(SETTING, data))
        outcomes = chunks.train_in_chunks(
            SETTING, "l2", RUNS, data, Training(), rows, restart, limit
        )
        return outcomes, np.stack([rows.read(task) for task in TASKS]), sizes

    return run


def assert_same(one, other):
    (outcomes, rows, _), (expected, expected_rows, _) = one, other
    assert {name: values.tobytes() for name, values in outcomes.items()} == {
        name: values.tobytes() for name, values in expected.items()
    }
    assert rows.tobytes() == expected_rows.tobytes()


def messages_about_memory(caplog):
    return [line for line in caplog.messages if "runs need about" in line]


@pytest.mark.parametrize(("hold", "sizes"), [(7.5, [4, 4]), (3.1, [3, 3, 2]), (0.5, [1] * 8)])
def test_ensemble_trained_in_chunks_equals_ensemble_trained_at_once(job, caplog, hold, sizes):
    at_once = job(hold=8.1, folder="at once")
    assert at_once[2] == [8]
    assert not messages_about_memory(caplog)
    in_chunks = job(hold)
    assert in_chunks[2] == sizes
    assert_same(in_chunks, at_once)
    (line,) = messages_about_memory(caplog)
    assert line.endswith(f"training them in {len(sizes)} chunks, with the same results")


def test_outcomes_have_all_runs_in_order(job):
    outcomes, rows, _ = job(hold=3.1)
    assert rows.shape[:2] == (len(TASKS), len(RUNS))
    assert outcomes["status"].tolist() == [[0.0] * 3] * 4 + [[1.0] * 3] * 4
    assert outcomes["final_error"].shape == (8, 3)
    assert outcomes["loss_curve"].shape == (8, 3, 8)
    assert len({tuple(curve) for curve in outcomes["loss_curve"][:4, 0]}) == 4


@pytest.mark.parametrize(
    ("hold", "sizes"), [(8.1, [2, 2, 4]), (3.1, [2, 2, 3, 1]), (0.5, [2, 2, 1, 1, 1, 1])]
)
def test_started_chunk_keeps_its_size_whatever_fits_now(job, hold, sizes):
    at_once = job(hold=8.1, folder="at once")
    with pytest.raises(KeyboardInterrupt):
        job(hold=2.1, stop_after=4)  # one task of the second chunk
    continued = job(hold)
    assert continued[2] == sizes
    assert_same(continued, at_once)


def test_memory_of_a_chunk_is_free_before_the_next_chunk_starts(job, monkeypatch):
    alive = weakref.WeakSet()
    before, draw = [], Trainer.__init__

    def drawn(self, *args, **kwargs):
        before.append(len(alive))
        alive.add(self)
        draw(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "__init__", drawn)
    gc.disable()  # so that only reference counts free memory
    try:
        job(hold=3.1)
    finally:
        gc.enable()
    assert before == [0, 0, 0]


def test_log_states_peak_memory(job, caplog):
    caplog.set_level("INFO", "plasticity")
    job(hold=8.1)
    assert [
        line
        for line in caplog.messages
        if line.startswith("trained; at most ") and line.endswith(" GiB of memory")
    ]


def test_images_are_checked_for_separability_before_training(data, tmp_path, caplog):
    def trained(samples):
        setting = replace(
            SETTING, problem=replace(SETTING.problem, samples=samples, separable=True)
        )
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in architecture.build_for(setting, data).named_parameters()
        }
        rows = CheckpointRows(tmp_path / "rows.f4", TASKS, 2, shapes)
        chunks.train_in_chunks(
            setting, "none", [({}, 0), ({}, 7)], data, Training(), rows, RestartStates(tmp_path, {})
        )

    with caplog.at_level("INFO"):
        trained(8)
    found = re.findall(
        r"images of seed (\d) are linearly separable under any labels; condition number (\d+)",
        caplog.text,
    )
    assert [seed for seed, _ in found] == ["0", "7"]
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(StudyError, match="not linearly separable"):
        trained(30)
    assert not list(tmp_path.iterdir())
