"""A pair of classes at a time (continual ImageNet: Dohare et al. 2024, Nature 632:768)."""

import numpy as np

from plasticity.data.shift import Task, Unchanged, shares
from plasticity.errors import StudyError


class Shift(Unchanged):
    """The seed's classes, in an order of its own, two by two; when all have had their turn, in a new order. Labels are 0 and 1.

    With an odd number of classes, each order leaves one out.
    """

    def outputs(self, classes: int) -> int:
        return 2

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if task.classes < 2:
            raise StudyError(
                f"class_pairs needs two classes, and {task.problem.dataset} has {task.classes}: choose another problem.shift"
            )
        turn, place = divmod(task.index, task.classes // 2)
        pair = task.generator("pairs", turn).permutation(task.classes)[2 * place : 2 * place + 2]
        places, classes = shares(task, labels, pair)
        return places, (classes == pair[1]).astype(np.int64)
