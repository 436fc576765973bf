"""Tasks as pure functions of problem, dataset, seed and index.

Every stage can rebuild every task, and no task depends on the number of tasks.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config.models import Problem
from plasticity.data import shift
from plasticity.errors import StudyError
from plasticity.rng import generator

MAX_CONDITION = 1e6  # float32 does not resolve singular values that are further apart


def build_task(problem: Problem, data: xr.Dataset, seed: int, index: int) -> tuple[Tensor, Tensor]:
    """Build the inputs and labels of one task.

    Args:
        problem: how many images a task has, and how tasks change.
        data: a prepared dataset, as `dataset.describe` returns it.
        seed: seed of the run.
        index: index of the task, from 0.

    Returns:
        Inputs, shape ``(n, channel, row, column)``, in float32 and scaled, and
        labels, shape ``(n,)``, as int64 classes or float32 targets. The first `samples` images are
        for training, and the last `test_samples` images are for testing.

    Raises:
        StudyError: if the dataset does not have what the problem asks for.
    """
    this_task = shift.Task(problem, data.sizes["class"], seed, index)
    this_shift = shift.build_shift(problem)
    indices, labels = this_shift.choose(this_task, data["label"].values)
    inputs = _scaled_images(data, indices, problem.scaling)
    return this_shift.alter(this_task, inputs, torch.from_numpy(labels))


def build_task_of_seeds(
    problem: Problem, data: xr.Dataset, seeds: list[int], index: int
) -> tuple[Tensor, Tensor]:
    """Build one task for several seeds.

    Returns:
        Inputs, shape ``(seed, n, channel, row, column)``, and labels, shape ``(seed, n)``.
    """
    tasks_of_seeds = [build_task(problem, data, seed, index) for seed in seeds]
    inputs = torch.stack([inputs for inputs, _ in tasks_of_seeds])
    labels = torch.stack([labels for _, labels in tasks_of_seeds])
    return inputs, labels


def draw_batches(problem: Problem, seed: int, index: int) -> np.ndarray:
    """Draw which samples each training step of a task sees.

    Each epoch has a new order. The samples that do not fill a batch are dropped at its end.

    Returns:
        Indices of samples, shape ``(step, batch)``.
    """
    draw = generator(seed, "batches", index)
    samples_per_epoch = problem.steps_per_epoch * problem.batch
    epochs = -(-problem.steps // problem.steps_per_epoch)  # rounded up
    orders = [draw.permutation(problem.samples)[:samples_per_epoch] for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, problem.batch)[: problem.steps]


def check_separable(problem: Problem, data: xr.Dataset, seed: int) -> float:
    """Check that a linear map fits the training images of a seed under any labels.

    This holds if the rows of [X, 1] are linearly independent, where X has one image per row.

    Returns:
        Condition number of [X, 1] for task 0: its largest over its smallest singular value.

    Raises:
        StudyError: if [X, 1] has dependent rows or a condition number above `MAX_CONDITION`.
    """
    inputs, _ = build_task(problem, data, seed, 0)
    images = inputs[: problem.samples].flatten(1).double().numpy()
    n = len(images)
    values = np.linalg.svd(np.hstack([images, np.ones((n, 1))]), compute_uv=False)
    tolerance = values[0] * max(images.shape) * np.finfo(float).eps
    rank = int((values > tolerance).sum())
    condition = float(values[0] / values[-1]) if rank == n else np.inf
    if condition > MAX_CONDITION:
        if rank < n:
            reason = f"[X, 1] has rank {rank}"
        else:
            reason = f"[X, 1] has a condition number of {condition:.0e}"
        raise StudyError(
            f"the {n} images of {problem.dataset} that seed {seed} draws are not linearly "
            f"separable under any labels ({reason}): lower problem.samples, "
            "or remove problem.separable"
        )
    return condition


def _scaled_images(data: xr.Dataset, indices: np.ndarray, scaling: str) -> Tensor:
    """Return some images on the scale of a problem.

    Args:
        data: a prepared dataset.
        indices: which images, shape ``(n,)``.
        scaling: see `Problem`.

    Returns:
        float32, shape ``(n, channel, row, column)``.
    """
    maximum = float(data["image"].attrs["valid_max"])
    pixels = torch.from_numpy(data["image"].values[indices]).float() / maximum
    if scaling == "unit":
        return pixels
    if scaling == "symmetric":
        return 2 * pixels - 1
    mean = torch.from_numpy(data["channel_mean"].values)[:, None, None]
    std = torch.from_numpy(data["channel_std"].values)[:, None, None]
    return (pixels - mean) / std
