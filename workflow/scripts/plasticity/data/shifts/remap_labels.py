"""Classes renamed, anew for every task: a mild change, whose features stay useful (as in UPGD, arXiv 2404.00781)."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import Task, Unchanged


@dataclass(frozen=True)
class Shift(Unchanged):
    """All images of a class get the same new label. `first_task`: `changed`, or `original`: task 0 has the true labels."""

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        return inputs, task.permutation("classes", task.classes)[labels]
