"""Training on a device that is not the CPU, tested without a GPU.

Fake tensors raise where a task mixes devices or waits for the device.
"""

from itertools import product

import pytest
import torch
from ensembles import ARMS, CNN, COMPOSED, SETTING, changed, images, with_network_of
from fake_device import fake_device, recorded_lists, values_of_lists
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
)

from plasticity.config import registry
from plasticity.config.models import Training
from plasticity.training.learner import Learner
from plasticity.training.trainer import Trainer

SHORT = {"epochs": 2, "tasks": 2}
SETTINGS = {"mlp": changed(SETTING, problem=SHORT), "cnn": changed(CNN, problem=SHORT)}
SIZES = {"mlp": 4, "cnn": 16}
# torch checks on the host whether singular values have converged
WAITING = {"l2_er"}


def train_on_fake_device(method, arms, kind="mlp", task=0):
    """Train one task on a fake device, from its data to its outcomes."""
    if kind == "cnn" and method in ("spectral", "parseval"):
        arms = [arm | {"kernels": "flat"} for arm in arms]
    setting = with_network_of(SETTINGS[kind], method)
    arguments = (setting, method, list(product(arms, (0, 1))), images(SIZES[kind]), Training())
    with recorded_lists() as lists:
        Trainer(*arguments, torch.device("cpu"))
    with fake_device() as device:
        with values_of_lists(lists):
            trainer = Trainer(*arguments, device)
        trainer.learner.task = task
        trainer.on_task_start()
        trainer.learn()
    return trainer


@pytest.fixture(autouse=True)
def fake_generators(monkeypatch):
    """A generator of a GPU needs a driver."""
    monkeypatch.setattr(Learner, "generators", lambda learner, purpose: [None] * len(learner.seeds))


@pytest.mark.parametrize("method", [*registry.names("methods"), *COMPOSED])
def test_no_step_of_a_task_mixes_devices_or_waits(method):
    trainer = train_on_fake_device(method, (ARMS | COMPOSED)[method])
    assert trainer.learner.step == SETTINGS["mlp"].problem.steps
    for name, tensor in trainer.boundary_tensors().items():
        assert tensor.device.type == "meta", name


@pytest.mark.parametrize("method", ["none", "redo", "continual_backprop", "neuroplastic_expansion"])
def test_no_step_of_a_convolutional_network_mixes_devices_or_waits(method):
    train_on_fake_device(method, ARMS[method], kind="cnn")


def test_only_methods_that_say_so_wait():
    waiting = {
        name
        for name in registry.names("methods")
        if registry.constant("methods", name, "WAITS_FOR_DEVICE")
    }
    assert waiting == WAITING


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda on_device, on_cpu: on_device + on_cpu, FakeTensorDeviceMismatchError),
        (lambda on_device, on_cpu: on_device.sum().item(), DataDependentOutputException),
        (lambda on_device, on_cpu: on_device.tolist(), DataDependentOutputException),
        (lambda on_device, on_cpu: bool(on_device.any()), DataDependentOutputException),
        (lambda on_device, on_cpu: on_device.nonzero(), DynamicOutputShapeException),
        (lambda on_device, on_cpu: on_device[on_device > 0], DynamicOutputShapeException),
    ],
)
def test_fake_device_refuses_what_a_gpu_refuses_or_waits_for(function, error):
    with fake_device() as device, pytest.raises(error):
        function(torch.zeros(2, device=device), torch.zeros(2))
