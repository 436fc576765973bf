"""Shifts, which say how tasks differ from each other: one file each in `shifts/`.

Each file has a class `Shift`. Its fields are its options, and the file's name is the `shift` of a
problem. A task is a pure function of its problem, dataset, seed and index, so a shift draws all its
random numbers with `Task.generator` or `Task.permutation`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import Problem
from plasticity.errors import StudyError
from plasticity.rng import generator


@dataclass(frozen=True)
class Task:
    """Identify one task.

    Attributes:
        problem: its problem, with `samples` training images and `test_samples` test images.
        classes: number of classes of the dataset.
        seed: seed of the run.
        index: position among the tasks of the seed, from 0.
    """

    problem: Problem
    classes: int
    seed: int
    index: int

    def generator(self, purpose: str, index: int | None = None) -> np.random.Generator:
        """Return the generator of a purpose, for this task or for another index of its seed."""
        return generator(self.seed, purpose, self.index if index is None else index)

    def permutation(self, purpose: str, n: int, index: int | None = None) -> Tensor:
        """Permute ``range(n)`` at random, for this task or for another index of its seed."""
        return torch.from_numpy(self.generator(purpose, index).permutation(n))


class BaseShift:
    """Base class of every `Shift`: each task has the same images with their true labels.

    A shift overrides only what it changes.

    Attributes:
        LOSS: name of the loss, a key of `losses.LOSSES`.
        EQUALLY_HARD: whether all tasks are equally hard for a newly initialised network, apart
            from chance.
    """

    LOSS = "cross_entropy"
    EQUALLY_HARD = True

    def outputs(self, classes: int) -> int:
        """Return how many outputs a network needs for a dataset with this number of classes."""
        return classes

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose the images of a task. Here all tasks of a seed have the same images.

        Args:
            task: which task.
            labels: labels of the whole dataset, shape ``(sample,)``.

        Returns:
            Indices into the dataset without duplicates, and labels before `alter`, both of shape
            ``(n,)``. Training images come before test images.

        Raises:
            StudyError: if the dataset has too few images.
        """
        count = task.problem.samples + task.problem.test_samples
        indices = draw_subset(task, np.arange(len(labels)), count, task.problem.dataset)
        return indices, labels[indices]

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Change the inputs or labels of a task.

        Args:
            task: which task.
            inputs: scaled, shape ``(n, channel, row, column)``.
            labels: shape ``(n,)``.

        Returns:
            Inputs and labels of the same shapes.
        """
        return inputs, labels


def build_shift(problem: Problem) -> BaseShift:
    """Build the shift of a problem, with its options."""
    shift: BaseShift = registry.build("shifts", problem.shift, problem.options)
    return shift


def draw_subset(task: Task, indices: np.ndarray, count: int, source: str) -> np.ndarray:
    """Draw images without replacement, the same ones for all tasks of a seed.

    Args:
        task: which task.
        indices: images to draw from, shape ``(m,)``.
        count: number of images to draw.
        source: what the images belong to, for the message.

    Returns:
        Indices in random order, shape ``(count,)``.

    Raises:
        StudyError: if `count` is above `m`.
    """
    if count > len(indices):
        keys = "problem.samples"
        if task.problem.test_samples:
            keys += " + problem.test_samples"
        raise StudyError(
            f"{keys} takes {count} images of {source}, which has only {len(indices)}: lower it"
        )
    return task.generator("subset", 0).permutation(indices)[:count]


def draw_balanced_subset(
    task: Task, labels: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw equally many images of each class, among training images and among test images.

    If the numbers do not divide evenly, the first classes have one image more.

    Args:
        task: which task.
        labels: labels of the whole dataset, shape ``(sample,)``.
        classes: labels of the classes to draw from, shape ``(class,)``.

    Returns:
        Indices and labels as `Unchanged.choose` returns them.

    Raises:
        StudyError: if a class has too few images.
    """
    train_counts = _split_evenly(task.problem.samples, len(classes))
    test_counts = _split_evenly(task.problem.test_samples, len(classes))
    train, test = [], []
    for label, train_count, test_count in zip(classes, train_counts, test_counts, strict=True):
        images_of_class = np.flatnonzero(labels == label)
        source = f"class {label} of {task.problem.dataset}"
        indices = draw_subset(task, images_of_class, train_count + test_count, source)
        train.append(indices[:train_count])
        test.append(indices[train_count:])
    chosen = np.concatenate(train + test)
    return chosen, labels[chosen]


def _split_evenly(total: int, parts: int) -> list[int]:
    """Split a number into parts that differ by at most 1, the larger parts first."""
    quotient, remainder = divmod(total, parts)
    return [quotient + 1] * remainder + [quotient] * (parts - remainder)
