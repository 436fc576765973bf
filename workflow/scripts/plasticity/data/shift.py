"""How tasks change, one file each: a class `Shift` whose fields are its options. The file's name is the `change` of a problem.

What a change does not override stays as it is. A task is a pure function of its problem, its data, its seed and its index: what it
draws, it draws by `Task.permutation`, or from `Task.generator`.
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
    """Which task it is.

    Attributes:
        problem: with the number of `samples` to train on, and of `test_samples` after them.
        classes: how many the dataset has.
        seed: whose task.
        index: its place among the seed's tasks, from 0.
    """

    problem: Problem
    classes: int
    seed: int
    index: int

    def generator(self, purpose: str, index: int | None = None) -> np.random.Generator:
        """For draws of this task, or of another one of the same seed."""
        return generator(self.seed, purpose, self.index if index is None else index)

    def permutation(self, purpose: str, n: int, index: int | None = None) -> Tensor:
        """``range(n)`` in an order of this task's own, or of another one's."""
        return torch.from_numpy(self.generator(purpose, index).permutation(n))


class Unchanged:
    """The base of all: the same images with their true labels, task after task."""

    LOSS = "cross_entropy"  # a name in losses.KINDS
    ALIKE = True  # whether tasks are equally hard for a fresh network, but for chance

    def outputs(self, classes: int) -> int:
        """How many outputs a network needs, where the dataset has so many classes."""
        return classes

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which images a task has, and their labels before `alter`.

        Args:
            task: which one.
            labels: of the whole dataset, shape ``(sample,)``.

        Returns:
            Places in the dataset, none twice, and labels, both of shape ``(n,)``; images to train on come before test images. Here one
            draw for all tasks.

        Raises:
            StudyError: the dataset has too few images.
        """
        chosen = some(
            task,
            np.arange(len(labels)),
            task.problem.samples + task.problem.test_samples,
            task.problem.dataset,
        )
        return chosen, labels[chosen]

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the task makes of its images, shape ``(n, channel, row, column)``, standardised, and of their labels, shape ``(n,)``."""
        return inputs, labels


def of(problem: Problem) -> Unchanged:
    """The change of a problem, with its options."""
    change: Unchanged = registry.build("shifts", problem.shift, problem.options)
    return change


def some(task: Task, images: np.ndarray, wanted: int, whose: str) -> np.ndarray:
    """So many of the images, in an order drawn once for all tasks of a seed.

    Raises:
        StudyError: there are too few.
    """
    if wanted > len(images):
        asked = "problem.samples" + " + problem.test_samples" * bool(task.problem.test_samples)
        raise StudyError(
            f"{asked} takes {wanted} images of {whose}, which has only {len(images)}: lower it"
        )
    return task.generator("subset", 0).permutation(images)[:wanted]


def shares(task: Task, labels: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of some classes in equal shares (the first classes have one more where it does not come out even), as `choose` gives them.

    Raises:
        StudyError: a class has too few images.
    """
    train, test = (
        np.array_split(np.arange(n), len(classes))
        for n in (task.problem.samples, task.problem.test_samples)
    )
    chosen = []
    for one, mine, tested in zip(classes, train, test, strict=True):
        images = some(
            task,
            np.flatnonzero(labels == one),
            len(mine) + len(tested),
            f"class {one} of {task.problem.dataset}",
        )
        chosen.append(np.split(images, [len(mine)]))
    places = np.concatenate([part[turn] for turn in (0, 1) for part in chosen])
    return places, labels[places]
