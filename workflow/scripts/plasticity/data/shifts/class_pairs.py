"""Two new classes in every task, as in continual ImageNet (Dohare et al. 2024, Nature 632:768)."""

import numpy as np

from plasticity.data.shift import BaseShift, Task, draw_balanced_subset
from plasticity.errors import StudyError


class Shift(BaseShift):
    """Each task tells two classes apart, with labels 0 and 1.

    Each seed goes through its own random order of the classes, two at a time, and then draws a new
    order. If the number of classes is odd, each order leaves out one class.
    """

    def outputs(self, classes: int) -> int:
        return 2

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if task.classes < 2:
            raise StudyError(
                f"class_pairs needs two classes, and {task.problem.dataset} has {task.classes}. "
                "Choose another problem.shift."
            )
        pairs_per_order = task.classes // 2
        orders_before, position = divmod(task.index, pairs_per_order)
        order = task.generator("pairs", orders_before).permutation(task.classes)
        pair = order[2 * position : 2 * position + 2]
        indices, true_labels = draw_balanced_subset(task, labels, pair)
        return indices, (true_labels == pair[1]).astype(np.int64)
