"""Checks on a GPU that need no pytest: bodies of the tests marked `gpu`, and of benchmarks/gpu.sh.

Each returns the largest difference that it found, and raises `AssertionError` if that is too large.
On a CPU they pass trivially, so they can be run anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from ensembles import ARMS, COMPOSED, SETTING, changed, images, with_network_of
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import Curvature, Network, Setting, Training
from plasticity.curvature import measure
from plasticity.training import hidden_units
from plasticity.training.trainer import Trainer, train

CPU = torch.device("cpu")
METHODS = [*ARMS, *COMPOSED]
# their random numbers come from a generator of the device
DRAW_ON_DEVICE = ("dropout", "shrink_perturb", "dropout+redo")
LARGEST_DIFFERENCE = 1e-8  # of parameters in float64
CURVATURE_DIFFERENCE = 1e-9  # of float64, relative to the largest number of a variable
NETWORKS = {
    "mlp": (Network("mlp", "relu", options={"width": 8, "depth": 2}), 4),
    "cnn": (Network("cnn", "relu", options={"width": 6}), 16),
    "resnet18": (Network("resnet18", "relu", options={"width": 2}), 6),
}
OPERATORS = {
    "fisher": {"samples": 20},
    "ggn": {"samples": 8},
    "ntk": {"samples": 6},
    "hessian": {"samples": 12, "blocks": ["last_two"]},
}
# numbers of a spectrum that change smoothly with the parameters; counts may jump
SMOOTH = ("eigenvalue", "trace", "top_eigenvalue", "stable_rank", "entropy_rank")
OF_GRADIENTS = ("gradient_strength", "gradient_reliability", "weight_norm")


def new_trainer(
    method: str,
    device: torch.device,
    setting: Setting = SETTING,
    dtype: torch.dtype = torch.float32,
    recorded: Training = Training(),  # noqa: B008 - it is frozen
) -> Trainer:
    """Make a trainer of two arms of a method, with two seeds each."""
    kind = setting.network.kind
    arms = (ARMS | COMPOSED)[method]
    if kind != "mlp" and method in ("spectral", "parseval"):
        arms = [arm | {"kernels": "flat"} for arm in arms]
    return Trainer(
        with_network_of(setting, method),
        method,
        list(product(arms, (0, 1))),
        images(NETWORKS[kind][1]),
        recorded,
        device,
        dtype,
    )


def trained(trainer: Trainer) -> Tensor:
    """Train all tasks; parameters at their starts and at the end, ``(time, run, parameter)``."""
    saved: list[Tensor] = []
    train(trainer, lambda task, parameters: saved.append(parameters.clone()))
    return torch.stack([*saved, trainer.learner.parameters.flat.detach()]).cpu()


def check_run_equals_cpu_run(method: str, device: torch.device, kind: str = "mlp") -> float:
    """Compare parameters and outcomes in float64 after a few dozen steps."""
    setting = changed(SETTING, network=vars(NETWORKS[kind][0]))
    with mock.patch.object(hidden_units, "DRAWS", 30):  # a CPU never repeats draws
        on_cpu, on_device = (
            new_trainer(method, where, setting, torch.float64) for where in (CPU, device)
        )
        expected, found = trained(on_cpu), trained(on_device)
    difference = (found - expected).abs().max().item()
    assert difference <= LARGEST_DIFFERENCE, f"{method}: parameters differ by {difference:.1e}"
    for name, values in on_cpu.recorder.outcomes.items():
        torch.testing.assert_close(
            on_device.recorder.outcomes[name], values, rtol=1e-5, atol=1e-6, equal_nan=True
        )
    return difference


def check_captured_step_equals_plain_step(
    method: str,
    device: torch.device,
    setting: Setting = SETTING,
    recorded: Training = Training(),  # noqa: B008 - it is frozen
) -> float:
    """Compare a replayed CUDA graph with its function, to the bit."""
    captured, plain = (new_trainer(method, device, setting, recorded=recorded) for _ in range(2))
    plain._take_step = plain._step
    expected, found = trained(plain), trained(captured)
    assert torch.equal(found, expected), f"{method}: a captured step differs from a plain step"
    for name, values in plain.recorder.outcomes.items():
        assert torch.equal(captured.recorder.outcomes[name].nan_to_num(), values.nan_to_num()), name
    return 0.0


def check_no_step_waits(method: str, device: torch.device) -> float:
    """Let torch raise where a step of the second task waits for the GPU; the first one captures."""
    trainer = new_trainer(method, device)
    trainer.on_task_start()
    trainer.learn()
    trainer.on_task_start()
    order, weights = trainer.batches.order(), trainer.recorder.start_task()
    with waiting_is_an_error(device):
        trainer._take_steps(order, weights)
    return 0.0


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Raise an exception where the host waits for the GPU inside the context."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_curvature_equals_that_of_a_cpu(
    operator: str, device: torch.device, kind: str = "mlp"
) -> float:
    """Compare the smooth measures of a trained ensemble in float64."""
    expected, found = (measures(operator, where, kind) for where in (CPU, device))
    largest = 0.0
    for name in expected:
        if name not in OF_GRADIENTS and name.removeprefix(f"{operator}_") not in SMOOTH:
            continue
        scale = np.nanmax(np.abs(expected[name]))
        difference = float(np.nanmax(np.abs(found[name] - expected[name])) / scale)
        assert difference <= CURVATURE_DIFFERENCE, f"{name} differs by {difference:.1e}"
        assert (np.isnan(found[name]) == np.isnan(expected[name])).all(), name
        largest = max(largest, difference)
    return largest


def measures(operator: str, device: torch.device, kind: str) -> dict[str, np.ndarray]:
    """Measure two runs after a task, which is trained on a CPU."""
    setting = changed(SETTING, network=vars(NETWORKS[kind][0]))
    trainer = new_trainer("none", CPU, setting)
    trainer.on_task_start()
    trainer.learn()
    parameters = trainer.learner.parameters
    checkpoints = SimpleNamespace(
        arms=["a", "b"],
        seeds=[0, 1],
        tasks=[1],
        shapes={name: tuple(shape) for name, shape in parameters.shapes.items()},
        at=lambda task: parameters.flat.detach().double(),
    )
    curvature = Curvature.of(
        {
            "operators": {operator: OPERATORS[operator]},
            "samples": 20,
            "every": 1,
            "evaluation_points": ["previous", "next"],
        }
    )
    data = images(NETWORKS[kind][1])
    return measure.measure(checkpoints, setting, curvature, data, device=device)[0]


def methods_that_wait() -> list[str]:
    """List the methods whose steps wait for a GPU."""
    return [
        method
        for method in registry.names("methods")
        if registry.constant("methods", method, "WAITS_FOR_DEVICE")
    ]
