"""Labels permuted across the images, anew for every task (Kumar, Marklund & Van Roy, arXiv 2308.11958, section 4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.data.shift import Task, Unchanged


@dataclass(frozen=True)
class Shift(Unchanged):
    """Class counts are kept; labels have nothing to do with the images, so test images keep their true ones.

    `first_task`: `changed`, as in that study, or `original`: task 0 has the true labels.
    """

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        n = task.problem.samples
        return inputs, torch.cat([labels[task.permutation("labels", n)], labels[n:]])
