"""Tasks as pure functions of (problem, seed, index): any stage rebuilds any task, and none depends on how many there are."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config.models import Problem
from plasticity.data import shift
from plasticity.errors import StudyError
from plasticity.rng import generator

CONDITION = 1e6  # singular values further apart than this are more than float32 resolves


def task(problem: Problem, data: xr.Dataset, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Inputs, standardised per channel, and labels of one task: its `samples` to train on, then its `test_samples`.

    Args:
        problem: how many images, and how tasks change.
        data: a prepared dataset, as `prepare` writes it.
        seed: whose task.
        index: of the task, from 0.

    Returns:
        Inputs ``(n, channel, row, column)`` in float32; labels ``(n,)``, int64 classes or float32 targets.

    Raises:
        StudyError: the dataset cannot give what the problem asks for.
    """
    change, which = shift.of(problem), shift.Task(problem, data.sizes["class"], seed, index)
    chosen, labels = change.choose(which, data["label"].values)
    pixels = torch.from_numpy(data["image"].values[chosen]).float() / float(
        data["image"].attrs["valid_max"]
    )
    mean, std = (
        torch.from_numpy(data[name].values)[:, None, None]
        for name in ("channel_mean", "channel_std")
    )
    return change.alter(which, (pixels - mean) / std, torch.from_numpy(labels))


def stacked(
    problem: Problem, data: xr.Dataset, seeds: list[int], index: int
) -> tuple[Tensor, Tensor]:
    """One task for several seeds: inputs ``(seed, n, channel, row, column)``, labels ``(seed, n)``."""
    inputs, labels = zip(*(task(problem, data, seed, index) for seed in seeds), strict=True)
    return torch.stack(inputs), torch.stack(labels)


def batches(problem: Problem, seed: int, index: int) -> np.ndarray:
    """Which samples each step of a task sees, shape ``(step, batch)``: a new order every epoch, the last partial batch dropped."""
    draw, per_epoch = generator(seed, "batches", index), problem.steps_per_epoch
    epochs = [
        draw.permutation(problem.samples)[: per_epoch * problem.batch]
        for _ in range(-(-problem.steps // per_epoch))
    ]
    return np.concatenate(epochs).reshape(-1, problem.batch)[: problem.steps]


def check_separable(problem: Problem, data: xr.Dataset, seed: int) -> float:
    """Make sure that a linear map fits any labels of a seed's images: the rows of [X, 1] are linearly independent.

    Returns:
        Condition number of [X, 1], of task 0: its largest singular value over its smallest.

    Raises:
        StudyError: naming the rank, or the condition number where it is beyond `CONDITION`.
    """
    inputs, _ = task(problem, data, seed, 0)
    images = inputs[: problem.samples].flatten(1).double().numpy()
    values = np.linalg.svd(np.hstack([images, np.ones((len(images), 1))]), compute_uv=False)
    n, rank = len(images), int((values > values[0] * max(images.shape) * np.finfo(float).eps).sum())
    condition = float(values[0] / values[-1]) if rank == n else np.inf
    if condition > CONDITION:
        found = (
            f"[X, 1] has a condition number of {condition:.0e}"
            if rank == n
            else f"[X, 1] has rank {rank}"
        )
        raise StudyError(
            f"the {n} images of {problem.dataset} that seed {seed} draws are not linearly separable under any labels ({found}): "
            "lower problem.samples, or take problem.separable away"
        )
    return condition
