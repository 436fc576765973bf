"""Tasks as pure functions of (problem, seed, index): any stage rebuilds any task, and none depends on how many there are."""

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.errors import StudyError
from plasticity.randomness import generator
from plasticity.settings import Problem


def subset(problem: Problem, data: xr.Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """The images that all tasks of a seed share, standardised per channel, with their true labels.

    Args:
        problem: how many samples are drawn, without replacement.
        data: a prepared dataset, as `prepare` writes it.
        seed: whose draw.

    Returns:
        Inputs ``(n, channel, row, column)`` in float32, labels ``(n,)`` in int64.

    Raises:
        StudyError: the dataset has fewer images than the problem asks for.
    """
    if problem.samples > data.sizes["sample"]:
        raise StudyError(f"problem.samples is {problem.samples}, but {problem.dataset} has only {data.sizes['sample']} images: lower it")
    chosen = generator(seed, "subset").permutation(data.sizes["sample"])[: problem.samples]
    pixels = torch.from_numpy(data["image"].values[chosen]).float() / float(data["image"].attrs["valid_max"])
    mean, std = (torch.from_numpy(data[name].values)[:, None, None] for name in ("channel_mean", "channel_std"))
    return (pixels - mean) / std, torch.from_numpy(data["label"].values[chosen])


def shuffle_labels(inputs: Tensor, labels: Tensor, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Labels permuted across the images, anew for every task, task 0 too; class counts are kept (arXiv 2308.11958, section 4)."""
    return inputs, labels[torch.from_numpy(generator(seed, "labels", index).permutation(len(labels)))]


CHANGES: dict[str, Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]] = {"shuffle_labels": shuffle_labels}


def task(problem: Problem, data: xr.Dataset, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of one task, in the order of the subset; shapes as `subset` gives them."""
    return CHANGES[problem.change](*subset(problem, data, seed), seed, index)


def stacked(problem: Problem, data: xr.Dataset, seeds: list[int], index: int) -> tuple[Tensor, Tensor]:
    """One task for several seeds: inputs ``(seed, n, channel, row, column)``, labels ``(seed, n)``."""
    inputs, labels = zip(*(task(problem, data, seed, index) for seed in seeds), strict=True)
    return torch.stack(inputs), torch.stack(labels)


def batches(problem: Problem, seed: int, index: int) -> np.ndarray:
    """Which samples each step of a task sees, shape ``(epoch, step, batch)``: a new order every epoch, the last partial batch dropped."""
    draw = generator(seed, "batches", index)
    whole = problem.samples // problem.batch * problem.batch
    return np.stack([draw.permutation(problem.samples)[:whole].reshape(-1, problem.batch) for _ in range(problem.epochs)])
