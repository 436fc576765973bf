"""Every task permutes the labels across its images.

This is as in Kumar, Marklund & Van Roy 2023 (arXiv 2308.11958, section 4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.data.shift import BaseShift, Task


@dataclass(frozen=True)
class Shift(BaseShift):
    """Training labels are independent of the images. The number of images per class is unchanged.

    Test images have their true labels. `first_task` is `changed`, as in that paper, or `original`
    if task 0 has the true labels.
    """

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        n = task.problem.samples
        shuffled = labels[task.permutation("labels", n)]
        return inputs, torch.cat([shuffled, labels[n:]])
