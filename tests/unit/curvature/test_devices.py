"""Curvature on a GPU equals that on a CPU. Without a GPU: nothing mixes devices."""

from types import SimpleNamespace

import gpu_checks
import pytest
import torch
from ensembles import CNN, SETTING, images
from fake_device import decided_values, fake_device

from plasticity.config import registry
from plasticity.config.models import Curvature
from plasticity.curvature import measure, spectrum_variables
from plasticity.models import architecture

SETTINGS = {"mlp": SETTING, "cnn": CNN}
SIZES = {"mlp": 4, "cnn": 16}
ESTIMATE = {"blocks": ["all"], "exact_up_to": 10, "steps": 3, "probes": 2}


def measure_on_fake_device(kind, operators):
    """Measure an ensemble of two runs at a task boundary on a fake device."""
    setting, data = SETTINGS[kind], images(SIZES[kind])
    network = architecture.build_for(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    size = sum(tensor.numel() for tensor in network.parameters())
    checkpoints = SimpleNamespace(
        arms=["a"],
        seeds=[0, 1],
        tasks=[1],
        shapes=shapes,
        at=lambda task: torch.zeros(2, size, dtype=torch.float64),
    )
    curvature = Curvature.of(
        {
            "operators": operators,
            "samples": 6,
            "every": 1,
            "evaluation_points": ["previous", "next"],
        }
    )
    with fake_device() as device, decided_values():
        return measure.measure(checkpoints, setting, curvature, data, device=device)[0]


@pytest.fixture(autouse=True)
def forget_fake_probes():
    yield
    spectrum_variables.probes.cache_clear()


@pytest.mark.parametrize("operator", registry.names("operators"))
def test_no_exact_spectrum_mixes_devices(operator):
    measures = measure_on_fake_device("mlp", {operator: {"samples": 3, "blocks": ["last_two"]}})
    assert measures[f"{operator}_trace"].shape[:4] == (1, 2, 1, 2)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_no_estimate_mixes_devices(kind):
    measures = measure_on_fake_device(kind, {"hessian": ESTIMATE})
    assert "hessian_density" in measures


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("operator", gpu_checks.OPERATORS)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_curvature_on_a_gpu_equals_that_on_a_cpu(kind, operator):
    gpu_checks.check_curvature_equals_that_of_a_cpu(operator, torch.device("cuda"), kind)
