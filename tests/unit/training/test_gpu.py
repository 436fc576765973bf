"""Training on a GPU equals training on a CPU, captured or not, at once or in chunks."""

import copy
from dataclasses import replace

import gpu_checks
import numpy as np
import pytest
import torch
from gpu_checks import trained

from plasticity.config import registry
from plasticity.config.models import Network, Optimizer, Problem, Setting, Training
from plasticity.models import architecture
from plasticity.storage.checkpoints import CheckpointRows
from plasticity.storage.restart import RestartStates
from plasticity.training import chunks, memory
from plasticity.training.trainer import Trainer, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=30, batch=7, epochs=10, tasks=6),
    Network("mlp", "tanh", options={"width": 11, "depth": 2}),
    Optimizer("adam", options={"lr": 0.003}),
)
SHORT = replace(SETTING, problem=replace(SETTING.problem, epochs=3, tasks=3))
GPU = torch.device("cuda")
WIDE = replace(
    SHORT, network=replace(SHORT.network, options={"width": 300, "depth": 2})
)  # other kernels than for small matrices and short rows
BFLOAT16 = Training(precision="bfloat16")


def new_trainer(data, method, setting):
    arms = [dict.fromkeys(registry.fields("methods", method), strength) for strength in (0.01, 0.3)]
    runs = [(arm, seed) for arm in arms for seed in (0, 1)]
    return Trainer(setting, method, runs, data, device=GPU)


@pytest.mark.parametrize(
    "method", [name for name in gpu_checks.METHODS if name not in gpu_checks.DRAW_ON_DEVICE]
)
def test_gpu_run_equals_cpu_run(method):
    gpu_checks.check_run_equals_cpu_run(method, GPU)


@pytest.mark.parametrize("kind", ["cnn", "resnet18"])
def test_vmapped_convolutional_gpu_run_equals_sequential_cpu_run(kind):
    gpu_checks.check_run_equals_cpu_run("l2_init", GPU, kind)


@pytest.mark.parametrize("method", gpu_checks.METHODS)
def test_captured_step_equals_plain_step(method):
    gpu_checks.check_captured_step_equals_plain_step(method, GPU)


@pytest.mark.parametrize("recorded", [Training(), BFLOAT16], ids=lambda how: how.precision)
@pytest.mark.parametrize("method", ["none", "wasserstein", "dropout"])
def test_captured_step_of_wide_layers_equals_plain_step(method, recorded):
    gpu_checks.check_captured_step_equals_plain_step(method, GPU, WIDE, recorded)


@pytest.mark.parametrize("method", gpu_checks.METHODS)
def test_no_step_waits_for_the_gpu(method):
    if method in gpu_checks.methods_that_wait():
        pytest.skip("it says that it waits")
    gpu_checks.check_no_step_waits(method, GPU)


def test_every_step_after_the_first_ones_is_captured(data):
    for method in ("none", "dropout"):
        trainer = new_trainer(data, method, SHORT)
        trained(trainer)
        assert trainer._take_step.calls == SHORT.problem.steps * SHORT.problem.tasks


@pytest.mark.parametrize(
    ("method", "since"),
    [("none", SHORT.problem.steps * SHORT.problem.tasks), ("fresh", SHORT.problem.steps)],
)
def test_captured_optimizer_counts_steps_once_and_resets(data, method, since):
    trainer = new_trainer(data, method, SHORT)
    trained(trainer)
    assert (trainer.learner.optimizer.steps == since).all()
    assert trainer.learner.optimizer.means["first"].any()


def test_restored_gpu_run_equals_uninterrupted_run(data):
    uninterrupted, states = new_trainer(data, "wasserstein", SHORT), []
    train(uninterrupted, save=lambda state: states.append(copy.deepcopy(state)))
    for state in states[:-1]:
        restored = new_trainer(data, "wasserstein", SHORT)
        restored.restore(state)
        train(restored)
        assert {name: values.tobytes() for name, values in restored.state().items()} == {
            name: values.tobytes() for name, values in states[-1].items()
        }


def test_chunks_use_less_memory_than_estimated_and_change_outcomes_by_rounding_only(
    data, tmp_path, monkeypatch
):
    setting = replace(SHORT, network=replace(SHORT.network, width=1000))
    runs = [({"strength": 0.01}, seed) for seed in range(8)]
    estimate = memory.per_run(setting, data)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.build_for(setting, data).named_parameters()
    }

    def train_chunks(chunk_size):
        """Train the ensemble; outcomes, and the peak of GPU memory above that before."""
        folder = tmp_path / str(chunk_size)
        folder.mkdir()
        monkeypatch.setattr(memory, "available", lambda device, limit, used: chunk_size * estimate)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        rows = CheckpointRows(folder / "rows.f4", [0], len(runs), shapes)
        outcomes = chunks.train_in_chunks(
            setting, "l2_init", runs, data, Training(), rows, RestartStates(folder, {})
        )
        return outcomes, torch.cuda.max_memory_allocated() - before

    train_chunks(8.5)  # libraries reserve what they keep
    (expected, at_once), (found, in_chunks) = train_chunks(8), train_chunks(2)
    assert in_chunks < 0.5 * at_once < 0.5 * 8 * estimate
    assert in_chunks < 2 * estimate
    for name in ("final_loss", "update_norm"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0.02, err_msg=name)
