"""Every task renames the classes: a mild shift, because features stay useful.

A similar problem is in the UPGD paper (arXiv 2404.00781).
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import BaseShift, Task


@dataclass(frozen=True)
class Shift(BaseShift):
    """All images of a class have the same new label.

    `first_task` is `changed`, or `original` if task 0 has the true labels.
    """

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        new_label = task.permutation("classes", task.classes)
        return inputs, new_label[labels]
