"""Compare the training of ensembles with plain loops over one network, and with a lower bound.

    python benchmarks/training.py [--quick] [--save]

It needs torch, numpy and xarray only, and uses a GPU if there is one. Data are random. All ways
take turns. Times are wall-clock, because some ways use several threads or processes. They are
medians of the turns with quartiles, and a ratio is the median of the ratios within turns. For each
problem it prints the microseconds per seed and step of:

- A loop as peers write it: a DataLoader, Adam with its default settings, and `.item()` of loss and
  accuracy after each step.
- The best plain loop: data in memory, fused Adam, no `.item()`. Both loops run with one thread and
  with all cores. Ratios are to the number of threads with the lower median.
- Ensembles, with all that they record. On a CPU an ensemble uses one thread. "One a core" runs one
  ensemble per core in parallel, as `snakemake --cores all` does.
- The floor: the bytes that a step moves over the measured bandwidth, plus its operations over the
  measured rate of matrix products. A step reads and writes 36 bytes per parameter: Adam 28, the
  products 8. It reads and writes each pixel once. PyTorch counts the operations.

A second table of each MLP compares ensembles with a penalty to one without.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from timing import results, turns
from timing.tables import Cell, Table
from timing.turns import Action, Spread
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
TURNS = 5
QUICK_TURNS = 2
BYTES_PER_PARAMETER = 36
BYTES_PER_PIXEL = 8
PEERS_LOOP = "DataLoader loop, as peers write it"
BEST_LOOP = "best plain loop: fused Adam"
TIMEOUT = 3600  # seconds for one turn of parallel ensembles; if one of them fails, none ends


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
        seeds: runs of the ensembles. The second also run once per core.
    """

    image: tuple[int, int, int]
    samples: int
    batch: int
    epochs: int
    quick_epochs: int
    network: Network
    seeds: tuple[int, ...] = (1, 10, 30)


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
        epochs=2,
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
        seeds=(1, 4),
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


def finish(action: Action) -> Action:
    """Let a function wait until the device has finished its work."""
    if DEVICE.type == "cpu":
        return action

    def act_and_wait() -> None:
        action()
        torch.cuda.synchronize()

    return act_and_wait


# Plain loops


def tensors(data: xr.Dataset) -> tuple[Tensor, Tensor]:
    """Convert images and labels to tensors on the CPU."""
    inputs = torch.from_numpy(data["image"].values).float() / 255
    labels = torch.from_numpy(data["label"].values)
    return inputs, labels


def build_peers_loop(setting: Setting, data: xr.Dataset, threads: int) -> Action:
    """Build a function that trains one network for one task, as peers write it."""
    problem = setting.problem
    network = architecture.build_for(setting, data).to(DEVICE)
    inputs, labels = tensors(data)

    def train() -> None:
        torch.set_num_threads(threads)
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
        torch.set_num_threads(1)

    return finish(train)


def build_best_loop(setting: Setting, data: xr.Dataset, threads: int) -> Action:
    """Build a function that trains one network for one task, as fast as a plain loop can."""
    problem = setting.problem
    network = architecture.build_for(setting, data).to(DEVICE)
    inputs, labels = tensors(data)

    def train() -> None:
        torch.set_num_threads(threads)
        x = inputs.to(DEVICE)
        y = labels.to(DEVICE)
        lr = setting.optimizer.options["lr"]
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
        for _ in range(problem.epochs):
            for samples in torch.randperm(problem.samples, device=DEVICE).split(problem.batch):
                optimizer.zero_grad()
                cross_entropy(network(x[samples]), y[samples]).backward()
                optimizer.step()
        torch.set_num_threads(1)

    return finish(train)


# Ensembles


def build_ensemble(
    setting: Setting, data: xr.Dataset, seeds: int, method: str = "none", **arm: float
) -> Action:
    """Build a function that trains an ensemble for one task and records its outcomes."""
    runs = [(arm, seed) for seed in range(seeds)]
    ensemble = trainer.Trainer(setting, method, runs, data, device=DEVICE)

    def train() -> None:
        ensemble.learner.task = 0
        ensemble.learn()

    return finish(train)


@contextmanager
def one_ensemble_per_core(setting: Setting, data: xr.Dataset, seeds: int) -> Iterator[Action]:
    """Start one process per core, and yield a function that trains one ensemble in each."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CORES + 1)
    arguments = (setting, data, seeds, barrier)
    processes = [context.Process(target=train_on_demand, args=arguments) for _ in range(CORES)]
    for process in processes:
        process.start()

    def train() -> None:
        for _ in ("start", "end"):
            barrier.wait(TIMEOUT)

    try:
        yield train
    finally:
        for process in processes:
            process.terminate()
            process.join()


def train_on_demand(setting: Setting, data: xr.Dataset, seeds: int, barrier: Barrier) -> None:
    """Train an ensemble whenever all processes wait, until this process is terminated."""
    make_deterministic()
    train = build_ensemble(setting, data, seeds)
    while True:
        barrier.wait()
        train()
        barrier.wait()


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


def best_seconds(action: Action, repetitions: int) -> float:
    """Measure the seconds of the fastest call: a rate of the machine is its best."""
    return min(turns.take_turns({"": finish(action)}, repetitions, time.perf_counter)[""])


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


def measure_case(name: str, *, is_quick: bool) -> list[Table]:
    """Measure one case, and for an MLP the cost of penalties."""
    case = CASES[name]
    epochs = case.quick_epochs if is_quick else case.epochs
    problem = Problem("random", "shuffle_labels", case.samples, case.batch, epochs, tasks=1)
    setting = Setting(problem, case.network, Optimizer("adam", options={"lr": 0.001}))
    data = draw_data(case.image, case.samples)
    title = f"{name}, batch {case.batch}, Adam"
    seeds = case.seeds[:2] if is_quick else case.seeds
    tables = [compare_with_loops(title, setting, data, seeds, is_quick=is_quick)]
    if case.network.kind == "mlp":
        tables.append(compare_penalties(title, setting, data, is_quick=is_quick))
    return tables


def compare_with_loops(
    title: str, setting: Setting, data: xr.Dataset, seeds: Sequence[int], *, is_quick: bool
) -> Table:
    """Measure loops and ensembles in turns, relative to the loops and the floor.

    `--quick` omits what needs all cores: a step with all cores can take 30 times as long, if other
    work keeps the cores busy.
    """
    has_all_cores = DEVICE.type == "cpu" and CORES > 1 and not is_quick
    peers: dict[str, Action] = {}
    loops: dict[str, Action] = {}
    for threads in (1, CORES) if has_all_cores else (1,):
        peers[f"{PEERS_LOOP}{name_cores(threads)}"] = build_peers_loop(setting, data, threads)
        loops[f"{BEST_LOOP}{name_cores(threads)}"] = build_best_loop(setting, data, threads)
    runs = {f"ensemble of {count}": count for count in seeds}
    ensembles = {name: build_ensemble(setting, data, count) for name, count in runs.items()}
    ways = peers | loops | ensembles
    if has_all_cores:
        name = f"ensembles of {seeds[1]}, one a core"
        runs[name] = seeds[1] * CORES
        with one_ensemble_per_core(setting, data, seeds[1]) as train:
            seconds = measure(ways | {name: train}, is_quick=is_quick)
    else:
        seconds = measure(ways, is_quick=is_quick)
    per_step = {
        name: [value / (setting.problem.steps * runs.get(name, 1)) for value in values]
        for name, values in seconds.items()
    }
    best_of_peers = min((per_step[name] for name in peers), key=Spread.of)
    best_loop = min((per_step[name] for name in loops), key=Spread.of)
    floor = compute_floor(setting, data)
    per_step["floor, counted"] = [floor] * len(best_loop)
    rows: list[list[Cell]] = [
        [
            name,
            Spread.of(values).times(1e6),
            turns.ratios(best_of_peers, values),
            turns.ratios(best_loop, values),
            Spread.of(values).median / floor,
        ]
        for name, values in per_step.items()
    ]
    columns = {"µs a seed-step": 0, "× peers": 2, "× plain": 2, "of floor": 2}
    return Table(title, "way", columns, rows)


def name_cores(threads: int) -> str:
    """Name the cores that a loop uses; on a GPU they do not matter."""
    if DEVICE.type == "cuda":
        return ""
    return f", {threads} core" if threads == 1 else f", {threads} cores"


def measure(ways: Mapping[str, Action], *, is_quick: bool) -> dict[str, list[float]]:
    """Measure the seconds of some ways in turns, after a first turn that does not count."""
    turns.take_turns(ways, 1)
    return turns.take_turns(ways, QUICK_TURNS if is_quick else TURNS, time.perf_counter)


def compare_penalties(title: str, setting: Setting, data: xr.Dataset, *, is_quick: bool) -> Table:
    """Measure how much longer a step of an ensemble takes with a penalty."""
    seeds = 2 if is_quick else 10
    ways = {"none": build_ensemble(setting, data, seeds)}
    for name, (method, arm) in PENALTIES.items():
        ways[name] = build_ensemble(setting, data, seeds, method, **arm)
    seconds = measure(ways, is_quick=is_quick)
    factor = 1e6 / (seeds * setting.problem.steps)
    rows: list[list[Cell]] = [
        [name, Spread.of(values).times(factor), turns.ratios(values, seconds["none"])]
        for name, values in seconds.items()
    ]
    columns = {"µs a seed-step": 0, "× none": 2}
    return Table(f"{title}: ensembles of {seeds} with a penalty", "penalty", columns, rows)


def describe_device() -> str:
    """Name the GPU, if there is one."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return "CPU only: no GPU here, so none was measured"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results.add_options(parser, "fewer steps and seeds, one thread, MLPs only")
    arguments = parser.parse_args()
    make_deterministic()
    number = QUICK_TURNS if arguments.quick else TURNS
    setup = f"torch {torch.__version__}, {describe_device()}; wall-clock time, {number} turns"
    ours = results.Results("training", is_quick=arguments.quick, setup=setup)
    for name, case in CASES.items():
        if case.quick_epochs or not arguments.quick:
            for table in measure_case(name, is_quick=arguments.quick):
                ours.add(table)
    ours.finish(is_saved=arguments.save)


if __name__ == "__main__":
    main()
