"""Training a cohort in lock-step against a plain loop, one member after the other.

    python benchmarks/training.py [--quick]

1,200 random images, batch 16, 784-100-100-10 with ReLU and Adam (the setting of "L2 Init", arXiv 2308.11958), one thread. Prints
microseconds per seed and step (the best of several runs) and ratios. The plain loop is the best we know: fused Adam, no
DataLoader, no `.item()`.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity import datasets, networks, training
from plasticity.lockstep import settle
from plasticity.settings import Network, Optimizer, Problem, Setting


def images(count: int) -> xr.Dataset:
    """Random pixels and labels in the shape of MNIST."""
    draw = np.random.default_rng(0)
    return datasets.describe("random", draw.integers(0, 256, (count, 1, 28, 28), np.uint8), draw.integers(0, 10, count), 255, {})


def cohort_time(setting: Setting, data: xr.Dataset, seeds: int) -> float:
    """Seconds per seed and step of the cohort engine, its bookkeeping included."""
    cohort = training.Cohort(setting, "none", [{}], list(range(seeds)), data)
    start = time.perf_counter()
    training.train(cohort, lambda *_: None)
    return (time.perf_counter() - start) / (setting.problem.steps * setting.problem.tasks * seeds)


def plain_time(setting: Setting, data: xr.Dataset) -> float:
    """Seconds per step of a plain loop on one network, without any bookkeeping."""
    problem = setting.problem
    inputs = torch.from_numpy(data["image"].values).flatten(1).float() / 255
    labels = torch.from_numpy(data["label"].values)
    network = networks.fitting(setting.network, data)[1:]
    optimizer = torch.optim.Adam(network.parameters(), lr=setting.optimizer.lr, fused=True)
    start = time.perf_counter()
    for _ in range(problem.tasks * problem.epochs):
        for samples in torch.randperm(len(inputs)).split(problem.batch):
            optimizer.zero_grad()
            cross_entropy(network(inputs[samples]), labels[samples]).backward()
            optimizer.step()
    return (time.perf_counter() - start) / (problem.steps * problem.tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and runs")
    quick = parser.parse_args().quick
    problem = Problem("random", "shuffle_labels", samples=1200, batch=16, epochs=2 if quick else 10, tasks=2)
    setting = Setting(problem, Network("mlp", width=100, depth=2, activation="relu"), Optimizer("adam", lr=0.001))
    data, runs = images(problem.samples), 2 if quick else 5
    settle()
    plain = min(plain_time(setting, data) for _ in range(runs))
    print(f"784-100-100-10, batch 16, Adam, torch {torch.__version__}, {platform.machine()}, 1 thread")
    print(f"{'way':28}{'µs a seed and step':>20}{'ratio':>8}")
    print(f"{'plain loop, fused Adam':28}{1e6 * plain:20.0f}{1:8.2f}")
    for seeds in (1, 10, 30):
        ours = min(cohort_time(setting, data, seeds) for _ in range(1 if quick else 3))
        print(f"{f'cohort of {seeds}':28}{1e6 * ours:20.0f}{plain / ours:8.2f}")


if __name__ == "__main__":
    main()
