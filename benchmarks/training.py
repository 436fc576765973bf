"""Compare the training of an ensemble with plain loops over one network, and with the machine.

    python benchmarks/training.py [--quick]

Needs torch, numpy and xarray only, and runs on a GPU where there is one. Prints, for each problem, microseconds per seed and step of

- a loop as peers write it: DataLoader, Adam by default, `.item()` of loss and accuracy;
- the best plain loop we know: data in memory, fused Adam, no `.item()`, the better of one thread and all;
- ensembles, all their bookkeeping included; on a CPU one thread each. "A core" are as many ensembles side by side as there are cores, which
  is how `snakemake --cores all` runs them;
- the floor, counted: bytes over measured bandwidth plus operations over measured matrix rate. Adam moves 28 bytes a parameter and step,
  products read it and write its gradient (8 more), an image is read and written; operations as PyTorch counts them.

Data are random; each figure is the best of several runs.
"""

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import xarray as xr
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

# image shape, images, batch, epochs (and quick ones) of a task, network
CASES = {
    "MNIST labels of L2 Init, 784-100-100-10": (
        (1, 28, 28),
        1200,
        16,
        (20, 5),
        Network("mlp", "relu", options={"width": 100, "depth": 2}),
    ),
    "digits, 64-64-64-64-10": (
        (1, 8, 8),
        1280,
        64,
        (40, 10),
        Network("mlp", "relu", options={"width": 64, "depth": 3}),
    ),
    "CIFAR-10 with the CNN of L2 Init": (
        (3, 32, 32),
        1200,
        16,
        (4, 0),
        Network("cnn", "relu", options={"width": 100}),
    ),
    "CIFAR-10 with ResNet-18": (
        (3, 32, 32),
        32,
        16,
        (1, 0),
        Network("resnet18", "relu", options={"width": 64}),
    ),
}

PENALTIES = {
    "L2": ("l2", {"strength": 0.001}),
    "L2 Init": ("l2_init", {"strength": 0.001}),
    "Wasserstein": ("wasserstein", {"strength": 0.001}),
    "Wasserstein, ranks of every 20th step": (
        "wasserstein",
        {"strength": 0.001, "ranks_every": 20},
    ),
}


def images(shape: tuple[int, int, int], count: int) -> xr.Dataset:
    """Random pixels, and labels of ten classes."""
    draw = np.random.default_rng(0)
    labels = np.concatenate([np.arange(10), draw.integers(0, 10, count - 10)])
    return dataset.describe(
        "random",
        dataset.Images(
            draw.integers(0, 256, (count, *shape), np.uint8), labels, list("0123456789")
        ),
        {},
    )


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes, until the device has done it."""
    start = time.perf_counter()
    run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def plain_loop(
    setting: Setting, data: xr.Dataset, *, as_peers_write_it: bool
) -> Callable[[], None]:
    """All steps of one task on one network, without any bookkeeping but a peer's own."""
    problem, network = setting.problem, architecture.build_for(setting, data).to(DEVICE)
    inputs, labels = (
        torch.from_numpy(data["image"].values).float() / 255,
        torch.from_numpy(data["label"].values),
    )

    def peers() -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=setting.optimizer.options["lr"])
        for _ in range(problem.epochs):
            for x, y in DataLoader(TensorDataset(inputs, labels), problem.batch, shuffle=True):
                outputs = network(x.to(DEVICE))
                loss = cross_entropy(outputs, y.to(DEVICE))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item(), (outputs.argmax(dim=1) == y.to(DEVICE)).float().mean().item()

    def best() -> None:
        x, y = inputs.to(DEVICE), labels.to(DEVICE)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=setting.optimizer.options["lr"], fused=True
        )
        for _ in range(problem.epochs):
            for samples in torch.randperm(problem.samples, device=DEVICE).split(problem.batch):
                optimizer.zero_grad()
                cross_entropy(network(x[samples]), y[samples]).backward()
                optimizer.step()

    return peers if as_peers_write_it else best


def ensemble(
    setting: Setting, data: xr.Dataset, seeds: int, method: str = "none", **arm: float
) -> Callable[[], None]:
    """All steps of one task by all runs, and what is recorded of it."""
    make_deterministic()
    members = trainer.Trainer(
        setting, method, [(arm, seed) for seed in range(seeds)], data, device=DEVICE
    )

    def learn() -> None:
        members.learner.task = 0
        members.learn()

    return learn


def one_of_many(
    setting: Setting,
    data: xr.Dataset,
    seeds: int,
    together: Barrier,
    times: "multiprocessing.Queue[float]",
) -> None:
    """An ensemble in a process of its own, timed while all the others run."""
    learn = ensemble(setting, data, seeds)
    learn()
    together.wait()
    times.put(seconds(learn))


def side_by_side(setting: Setting, data: xr.Dataset, seeds: int) -> float:
    """Seconds of an ensemble while every other core has one as well; the slowest's."""
    context = multiprocessing.get_context("spawn")
    together, times = context.Barrier(CORES), context.Queue()
    processes = [
        context.Process(target=one_of_many, args=(setting, data, seeds, together, times))
        for _ in range(CORES)
    ]
    for process in processes:
        process.start()
    slowest = max(times.get() for _ in processes)
    for process in processes:
        process.join()
    return slowest


def floor(setting: Setting, data: xr.Dataset) -> float:
    """Seconds that a run's step must take: what it moves and computes, at the rates of this machine (see above)."""
    network = architecture.build_for(setting, data).to(DEVICE)
    inputs = torch.rand(
        setting.problem.batch,
        *(data.sizes[dim] for dim in ("channel", "row", "column")),
        device=DEVICE,
    )
    with FlopCounterMode(display=False) as counter:
        network(inputs).logsumexp(dim=1).sum().backward()
    numbers = sum(parameter.numel() for parameter in network.parameters())
    a, b = (torch.rand(10 * numbers, device=DEVICE) for _ in range(2))
    size = 2048 if DEVICE.type == "cpu" else 16384
    X, Y = (torch.rand(size, size, device=DEVICE) for _ in range(2))
    bandwidth = 12 * len(a) / min(seconds(lambda: a.add_(b)) for _ in range(20))
    rate = 2 * size**3 / min(seconds(lambda: X @ Y) for _ in range(5))
    return (36 * numbers + 8 * inputs.numel()) / bandwidth + counter.get_total_flops() / rate


def compare(name: str, *, quick: bool) -> None:
    """Print one problem's table."""
    shape, count, batch, epochs, network = CASES[name]
    problem = Problem("random", "shuffle_labels", count, batch, epochs[quick], tasks=1)
    setting, data, runs = (
        Setting(problem, network, Optimizer("adam", options={"lr": 0.001})),
        images(shape, count),
        2,
    )
    times: dict[str, float] = {}

    for way, as_peers in (
        ("DataLoader loop, as peers write it", True),
        ("best plain loop: fused Adam", False),
    ):
        for threads in {1, CORES}:
            make_deterministic()
            torch.set_num_threads(threads)
            run = plain_loop(setting, data, as_peers_write_it=as_peers)
            run()
            times[way] = min(
                times.get(way, np.inf), *(seconds(run) / problem.steps for _ in range(runs))
            )
    make_deterministic()
    lowest = floor(setting, data)
    for seeds in (1, 10) if quick else (1, 10, 30):
        run = ensemble(setting, data, seeds)
        run()
        times[f"ensemble of {seeds}"] = min(seconds(run) for _ in range(runs)) / (
            problem.steps * seeds
        )
        del run
    if DEVICE.type == "cpu" and not quick:
        times["ensembles of 10, one a core"] = side_by_side(setting, data, 10) / (
            problem.steps * 10 * CORES
        )

    peers, plain = list(times.values())[:2]
    print(f"\n{name}, batch {batch}, Adam")
    print(
        f"{'way':36}{'µs a seed-step':>16}{'seed-steps/s':>14}{'× peers':>9}{'× plain':>9}{'of floor':>10}"
    )
    for way, value in {**times, "floor, counted": lowest}.items():
        print(
            f"{way:36}{1e6 * value:16.0f}{1 / value:14.0f}{peers / value:9.2f}{plain / value:9.2f}{value / lowest:10.2f}"
        )
    if network.kind == "mlp":
        penalised(setting, data, 3 if quick else 10)


def penalised(setting: Setting, data: xr.Dataset, runs: int) -> None:
    """Print how much longer a step of 10 runs takes with a penalty: best of some runs, which take turns to see the same machine."""
    ways = {
        name: ensemble(setting, data, 10, method, **arm)
        for name, (method, arm) in {"none": ("none", {}), **PENALTIES}.items()
    }
    best = dict.fromkeys(ways, np.inf)
    for _ in range(1 + runs):
        best = {name: min(best[name], seconds(run)) for name, run in ways.items()}
    for name in PENALTIES:
        print(
            f"a step with {name} takes {best[name] / best['none']:.2f} times as long as one without"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer steps and runs; small networks only"
    )
    quick = parser.parse_args().quick
    where = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else f"{platform.machine()}, {CORES} cores; no GPU here, so none was measured"
    )
    print(f"torch {torch.__version__} on {where}")
    for name, (_, _, _, epochs, _) in CASES.items():
        if epochs[quick]:
            compare(name, quick=quick)


if __name__ == "__main__":
    main()
