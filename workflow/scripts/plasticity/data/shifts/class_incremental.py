"""Classes come one after the other and stay (as in the class-incremental problem of Dohare et al. 2024, Nature 632:768)."""

from dataclasses import dataclass

import numpy as np

from plasticity.data.shift import Task, Unchanged, shares
from plasticity.errors import StudyError


@dataclass(frozen=True)
class Shift(Unchanged):
    """Each task adds `new_classes`, in an order of the seed's own; its images are those of all classes so far, in equal shares.

    A network has outputs for all classes of the dataset from the start.
    """

    ALIKE = False  # two classes are told apart sooner than ten

    new_classes: int = 1

    def choose(self, task: Task, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        problem = task.problem
        if self.new_classes * problem.tasks > task.classes:
            raise StudyError(
                f"problem.tasks is {problem.tasks}, each with {self.new_classes} new classes, but {problem.dataset} has only "
                f"{task.classes}: lower problem.tasks or problem.new_classes"
            )
        order = task.generator("classes", 0).permutation(task.classes)
        return shares(task, labels, order[: self.new_classes * (task.index + 1)])
