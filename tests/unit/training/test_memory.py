"""Estimated memory of training, against counts by hand and against measurements."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.data.dataset import Images, describe
from plasticity.models import architecture
from plasticity.provenance import code_digest
from plasticity.training import memory


def images(channels, size):
    return describe(
        "blank",
        Images(np.zeros((4, channels, size, size), np.uint8), np.arange(4) % 3, list("abc"), 1),
        {},
    )


def fitting(network, data):
    problem = Problem("blank", "shuffle_labels", samples=4, batch=2, epochs=1, tasks=1)
    return architecture.build_for(
        Setting(problem, network, Optimizer("adam", options={"lr": 0.001})), data
    )


@pytest.mark.parametrize(
    ("network", "channels", "size", "expected"),
    [
        (
            Network("mlp", "relu", options={"width": 8, "depth": 3}),
            2,
            5,
            [50, 8, 8, 8, 8, 8, 8, 3],
        ),  # flattened, three layers with an activation each, output
        (
            Network("cnn", "tanh", options={"width": 7}),
            2,
            20,
            [
                16 * 16 * 16,
                16 * 16 * 16,
                16 * 8 * 8,
                16 * 4 * 4,
                16 * 4 * 4,
                16 * 2 * 2,
                64,
                7,
                7,
                7,
                7,
                3,
            ],
        ),
    ],
)
def test_activations_count_outputs_of_each_layer_for_one_image(network, channels, size, expected):
    data = images(channels, size)
    assert memory.activations(fitting(network, data), data) == sum(expected)


def test_counting_activations_leaves_no_hooks():
    data = images(1, 16)
    network = fitting(Network("cnn", "relu", options={"width": 7}), data)
    memory.activations(network, data)
    assert not any(layer._forward_hooks for layer in network.modules())


def test_available_cpu_memory_is_the_limit_minus_used_memory():
    assert memory.available(torch.device("cpu"), memory.BASE + 12345, 0) == 12345
    assert memory.available(torch.device("cpu"), memory.BASE + 12345, 2345) == 10000, (
        "the dataset is in memory already"
    )
    assert memory.available(torch.device("cpu"), memory.BASE // 2, 0) == 0


def test_available_cpu_memory_without_limit_is_that_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 10**6, "SC_PAGE_SIZE": 4096}.get)
    assert memory.available(torch.device("cpu"), None, 0) == 4096 * 10**6 - memory.BASE


def test_available_gpu_memory_is_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (777, 999))
    assert memory.available(torch.device("cuda"), 10**12, 5) == 777
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert memory.available(torch.device("cuda"), 10**12, 5) == 777 + 70


CASES = {  # network, samples, pixels in a row, method, its arm, few and many runs
    "parameters": [
        {"kind": "mlp", "activation": "relu", "width": 400, "depth": 2},
        64,
        16,
        "l2_init",
        {"strength": 0.1},
        2,
        12,
    ],
    "data": [
        {"kind": "mlp", "activation": "relu", "width": 4, "depth": 1},
        1500,
        28,
        "none",
        {},
        2,
        12,
    ],
    "convolutions": [
        {"kind": "cnn", "activation": "relu", "width": 100},
        128,
        28,
        "none",
        {},
        2,
        9,
    ],
}
PEAKS = """
import json, os, sys
import numpy as np
import torch
from plasticity.models import ensemble
from plasticity.training import memory
from plasticity.data.dataset import Images, describe
from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.training.trainer import Trainer, train

def peak():  # of this process alone; that of getrusage includes its parent's
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def measure(network, samples, size, method, arm, *numbers):
    drawn = np.random.default_rng(0).integers(0, 9, (samples, 1, size, size), np.uint8)
    data = describe("drawn", Images(drawn, np.arange(samples) % 10, list("0123456789"), 9), {})
    problem = Problem("drawn", "shuffle_labels", samples, 16, 1, 2)
    optimizer = Optimizer("adam", options={"lr": 0.001})
    setting = Setting(problem, Network.of(network), optimizer)
    peaks = []
    for runs in numbers:
        pairs = [(arm, seed) for seed in range(runs)]
        train(Trainer(setting, method, pairs, data, device=torch.device("cpu")))
        peaks.append(peak())
    return memory.per_run(setting, data), peaks

ensemble.make_deterministic()
measure({"kind": "mlp", "activation": "relu", "width": 2, "depth": 1}, 16, 2, "none", {}, 1)
print(peak(), flush=True)
for name, case in json.loads(sys.argv[1]).items():
    if os.fork():
        os.wait()
    else:
        print(json.dumps([name, *measure(*case)]), flush=True)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def measured():
    """Peak of an idle process; and by case, the estimate per run and peaks of few and many runs."""
    asked = [sys.executable, "-c", PEAKS, json.dumps(CASES)]
    done = subprocess.run(
        asked, cwd=code_digest.SCRIPTS, capture_output=True, text=True, check=True
    )
    base, *cases = map(json.loads, done.stdout.splitlines())
    return base, {name: values for name, *values in cases}


@pytest.mark.parametrize(
    ("case", "most"), [("parameters", 3), ("data", 3), ("convolutions", 20)]
)  # on a CPU, one after the other
def test_estimate_per_run_is_above_measured_memory_and_near_it(measured, case, most):
    estimate, (peak_of_few, peak_of_many) = measured[1][case]
    *_, few, many = CASES[case]
    used = peak_of_many - peak_of_few
    assert used < (many - few) * estimate < most * used


def test_base_is_above_memory_of_an_idle_process_and_near_it(measured):
    assert 0.5 * memory.BASE < measured[0] < memory.BASE
