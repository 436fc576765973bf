"""Compare the training of ensembles with plain loops over one network, and with a lower bound.

    python benchmarks/training.py [--quick]

It needs torch, numpy and xarray only, and uses a GPU if there is one. Data are random. Each number
is the best of several repetitions. With `--quick` a task has so few steps that the numbers are
rough. For each problem it prints the microseconds per seed and step of:

- A loop as peers write it: a DataLoader, Adam with its default settings, and `.item()` of loss and
  accuracy after each step.
- The best plain loop: data in memory, fused Adam, no `.item()`. Both loops run with one thread and
  with all cores, and the faster of the two counts. With `--quick` they run with one thread only.
- Ensembles, with all that they record. On a CPU an ensemble uses one thread. "One a core" runs one
  ensemble per core in parallel, as `snakemake --cores all` does.
- The floor: the bytes that a step moves over the measured bandwidth, plus its operations over the
  measured rate of matrix products. A step reads and writes 36 bytes per parameter: Adam 28, the
  products 8. It reads and writes each pixel once. PyTorch counts the operations.
"""

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.data import dataset
from plasticity.models import architecture
from plasticity.models.ensemble import make_deterministic
from plasticity.training import trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CORES = len(os.sched_getaffinity(0))
REPETITIONS = 2
BYTES_PER_PARAMETER = 36
BYTES_PER_PIXEL = 8
PEERS_LOOP = "DataLoader loop, as peers write it"
BEST_LOOP = "best plain loop: fused Adam"
Action = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A problem and its network.

    Attributes:
        image: shape of an image, ``(channel, row, column)``.
        samples: images of a task.
        batch: images of a step.
        epochs: passes over the images of a task.
        quick_epochs: the same with ``--quick``; 0 omits the case.
        network: that is trained.
    """

    image: tuple[int, int, int]
    samples: int
    batch: int
    epochs: int
    quick_epochs: int
    network: Network


CASES = {
    "MNIST labels of L2 Init, 784-100-100-10": Case(
        image=(1, 28, 28),
        samples=1200,
        batch=16,
        epochs=20,
        quick_epochs=1,
        network=Network("mlp", "relu", options={"width": 100, "depth": 2}),
    ),
    "digits, 64-64-64-64-10": Case(
        image=(1, 8, 8),
        samples=1280,
        batch=64,
        epochs=40,
        quick_epochs=3,
        network=Network("mlp", "relu", options={"width": 64, "depth": 3}),
    ),
    "CIFAR-10 with the CNN of L2 Init": Case(
        image=(3, 32, 32),
        samples=1200,
        batch=16,
        epochs=4,
        quick_epochs=0,
        network=Network("cnn", "relu", options={"width": 100}),
    ),
    "CIFAR-10 with ResNet-18": Case(
        image=(3, 32, 32),
        samples=32,
        batch=16,
        epochs=1,
        quick_epochs=0,
        network=Network("resnet18", "relu", options={"width": 64}),
    ),
}
# method and hyperparameters, by the name of the penalty
PENALTIES = {
    "L2": ("l2", {"strength": 0.001}),
    "L2 Init": ("l2_init", {"strength": 0.001}),
    "Wasserstein": ("wasserstein", {"strength": 0.001}),
    "Wasserstein, ranks of every 20th step": (
        "wasserstein",
        {"strength": 0.001, "ranks_every": 20},
    ),
}


def draw_data(image: tuple[int, int, int], count: int) -> xr.Dataset:
    """Draw random pixels, and labels of ten classes."""
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(10), random.integers(0, 10, count - 10)])
    pixels = random.integers(0, 256, (count, *image), np.uint8)
    return dataset.describe("random", dataset.Images(pixels, labels, list("0123456789")), {})


def measure_seconds(action: Callable[[], object]) -> float:
    """Measure the seconds of a call, until the device has finished it."""
    start = time.perf_counter()
    action()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best_seconds(action: Callable[[], object], repetitions: int) -> float:
    """Measure the seconds of the fastest of some calls."""
    return min(measure_seconds(action) for _ in range(repetitions))


# Plain loops


def tensors(data: xr.Dataset) -> tuple[Tensor, Tensor]:
    """Convert images and labels to tensors on the CPU."""
    inputs = torch.from_numpy(data["image"].values).float() / 255
    labels = torch.from_numpy(data["label"].values)
    return inputs, labels


def build_peers_loop(setting: Setting, data: xr.Dataset) -> Action:
    """Build a function that trains one network for one task, as peers write it."""
    problem = setting.problem
    network = architecture.build_for(setting, data).to(DEVICE)
    inputs, labels = tensors(data)

    def train() -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=setting.optimizer.options["lr"])
        for _ in range(problem.epochs):
            for x, y in DataLoader(TensorDataset(inputs, labels), problem.batch, shuffle=True):
                outputs = network(x.to(DEVICE))
                loss = cross_entropy(outputs, y.to(DEVICE))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
                (outputs.argmax(dim=1) == y.to(DEVICE)).float().mean().item()

    return train


def build_best_loop(setting: Setting, data: xr.Dataset) -> Action:
    """Build a function that trains one network for one task, as fast as a plain loop can."""
    problem = setting.problem
    network = architecture.build_for(setting, data).to(DEVICE)
    inputs, labels = tensors(data)

    def train() -> None:
        x = inputs.to(DEVICE)
        y = labels.to(DEVICE)
        lr = setting.optimizer.options["lr"]
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
        for _ in range(problem.epochs):
            for samples in torch.randperm(problem.samples, device=DEVICE).split(problem.batch):
                optimizer.zero_grad()
                cross_entropy(network(x[samples]), y[samples]).backward()
                optimizer.step()

    return train


def time_plain_loop(
    build_loop: Callable[[Setting, xr.Dataset], Action],
    setting: Setting,
    data: xr.Dataset,
    thread_counts: Collection[int],
) -> float:
    """Measure the seconds per step of a loop, with the fastest of some numbers of threads."""
    times = []
    for threads in thread_counts:
        make_deterministic()
        torch.set_num_threads(threads)
        train = build_loop(setting, data)
        train()
        times.append(best_seconds(train, REPETITIONS) / setting.problem.steps)
    return min(times)


# Ensembles


def build_ensemble(
    setting: Setting, data: xr.Dataset, seeds: int, method: str = "none", **arm: float
) -> Action:
    """Build a function that trains an ensemble for one task and records its outcomes."""
    make_deterministic()
    runs = [(arm, seed) for seed in range(seeds)]
    ensemble = trainer.Trainer(setting, method, runs, data, device=DEVICE)

    def train() -> None:
        ensemble.learner.task = 0
        ensemble.learn()

    return train


def time_ensemble(setting: Setting, data: xr.Dataset, seeds: int) -> float:
    """Measure the seconds per seed and step of an ensemble."""
    train = build_ensemble(setting, data, seeds)
    train()
    return best_seconds(train, REPETITIONS) / (setting.problem.steps * seeds)


def time_one_process(
    setting: Setting,
    data: xr.Dataset,
    seeds: int,
    barrier: Barrier,
    times: "multiprocessing.Queue[float]",
) -> None:
    """Measure the seconds of an ensemble in this process, while all other processes train too."""
    train = build_ensemble(setting, data, seeds)
    train()
    barrier.wait()
    times.put(measure_seconds(train))


def time_one_ensemble_per_core(setting: Setting, data: xr.Dataset, seeds: int) -> float:
    """Measure the seconds of the slowest of parallel ensembles, one per core."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CORES)
    times = context.Queue()
    arguments = (setting, data, seeds, barrier, times)
    processes = [context.Process(target=time_one_process, args=arguments) for _ in range(CORES)]
    for process in processes:
        process.start()
    slowest = max(times.get() for _ in processes)
    for process in processes:
        process.join()
    return slowest


# Floor


def compute_floor(setting: Setting, data: xr.Dataset) -> float:
    """Compute the seconds that a step of one run takes at the measured rates of this machine."""
    network = architecture.build_for(setting, data).to(DEVICE)
    image = [data.sizes[dim] for dim in ("channel", "row", "column")]
    inputs = torch.rand(setting.problem.batch, *image, device=DEVICE)
    with FlopCounterMode(display=False) as counter:
        network(inputs).logsumexp(dim=1).sum().backward()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    moved_bytes = BYTES_PER_PARAMETER * parameters + BYTES_PER_PIXEL * inputs.numel()
    moving_seconds = moved_bytes / measure_bandwidth(10 * parameters)
    return moving_seconds + counter.get_total_flops() / measure_matrix_rate()


def measure_bandwidth(count: int) -> float:
    """Measure the bytes per second of a sum of two vectors with `count` numbers."""
    a = torch.rand(count, device=DEVICE)
    b = torch.rand(count, device=DEVICE)
    moved_bytes = 12 * count  # float32: two reads and a write
    return moved_bytes / best_seconds(lambda: a.add_(b), 20)


def measure_matrix_rate() -> float:
    """Measure the operations per second of a product of square matrices."""
    size = 2048 if DEVICE.type == "cpu" else 16384
    X = torch.rand(size, size, device=DEVICE)
    Y = torch.rand(size, size, device=DEVICE)
    return 2 * size**3 / best_seconds(lambda: X @ Y, 5)


# Tables


def print_case(name: str, *, is_quick: bool) -> None:
    """Print the table of one case, and for an MLP the cost of penalties."""
    case = CASES[name]
    epochs = case.quick_epochs if is_quick else case.epochs
    problem = Problem("random", "shuffle_labels", case.samples, case.batch, epochs, tasks=1)
    setting = Setting(problem, case.network, Optimizer("adam", options={"lr": 0.001}))
    data = draw_data(case.image, case.samples)
    # A step with all cores can take 30 times as long, if other work keeps the cores busy.
    thread_counts = {1} if is_quick else {1, CORES}
    times = {
        PEERS_LOOP: time_plain_loop(build_peers_loop, setting, data, thread_counts),
        BEST_LOOP: time_plain_loop(build_best_loop, setting, data, thread_counts),
    }
    make_deterministic()
    floor = compute_floor(setting, data)
    for seeds in (1, 10) if is_quick else (1, 10, 30):
        times[f"ensemble of {seeds}"] = time_ensemble(setting, data, seeds)
    if DEVICE.type == "cpu" and not is_quick:
        seconds = time_one_ensemble_per_core(setting, data, seeds=10)
        times["ensembles of 10, one a core"] = seconds / (problem.steps * 10 * CORES)
    times["floor, counted"] = floor
    print(f"\n{name}, batch {case.batch}, Adam")
    print_times(times, floor)
    if case.network.kind == "mlp":
        print_penalties(setting, data, repetitions=2 if is_quick else 11)


def print_times(times: Mapping[str, float], floor: float) -> None:
    """Print seconds per seed and step as rows of a table, relative to the loops and the floor."""
    head = f"{'way':36}{'µs a seed-step':>16}{'seed-steps/s':>14}"
    print(f"{head}{'× peers':>9}{'× plain':>9}{'of floor':>10}")
    for name, seconds in times.items():
        row = f"{name:36}{1e6 * seconds:16.0f}{1 / seconds:14.0f}"
        ratios = f"{times[PEERS_LOOP] / seconds:9.2f}{times[BEST_LOOP] / seconds:9.2f}"
        print(f"{row}{ratios}{seconds / floor:10.2f}")


def print_penalties(setting: Setting, data: xr.Dataset, repetitions: int) -> None:
    """Print how much longer a step of 10 runs takes with a penalty.

    The penalties take turns, so that a slow phase of the machine slows all of them.
    """
    actions = {"none": build_ensemble(setting, data, 10)}
    for name, (method, arm) in PENALTIES.items():
        actions[name] = build_ensemble(setting, data, 10, method, **arm)
    best = dict.fromkeys(actions, np.inf)
    for _ in range(repetitions):
        for name, train in actions.items():
            best[name] = min(best[name], measure_seconds(train))
    for name in PENALTIES:
        ratio = best[name] / best["none"]
        print(f"a step with {name} takes {ratio:.2f} times as long as one without")


def describe_machine() -> str:
    """Name the GPU, or the processor if there is no GPU."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {CORES} cores; no GPU here, so none was measured"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer steps, seeds and threads; MLPs only"
    )
    is_quick = parser.parse_args().quick
    print(f"torch {torch.__version__} on {describe_machine()}")
    for name, case in CASES.items():
        if case.quick_epochs or not is_quick:
            print_case(name, is_quick=is_quick)


if __name__ == "__main__":
    main()
