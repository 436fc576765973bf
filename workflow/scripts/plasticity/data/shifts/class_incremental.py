"""Classes arrive one after the other and stay.

This is as in the class-incremental problem of Dohare et al. 2024 (Nature 632:768).
"""

from dataclasses import dataclass

import numpy as np

from plasticity.data.shift import BaseShift, Task, draw_balanced_subset
from plasticity.errors import StudyError


@dataclass(frozen=True)
class Shift(BaseShift):
    """Each task adds `new_classes` classes and has equally many images of all classes so far.

    Each seed has its own order of the classes. A network has outputs for all classes of the dataset
    from the first task on.
    """

    EQUALLY_HARD = False  # two classes are easier to tell apart than ten

    new_classes: int = 1

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        problem = task.problem
        if self.new_classes * problem.tasks > task.classes:
            raise StudyError(
                f"problem.tasks is {problem.tasks}, each with {self.new_classes} new classes, but "
                f"{problem.dataset} has only {task.classes}. "
                "Lower problem.tasks or problem.new_classes."
            )
        order = task.generator("classes", 0).permutation(task.classes)
        classes_so_far = order[: self.new_classes * (task.index + 1)]
        return draw_balanced_subset(task, labels, classes_so_far)
