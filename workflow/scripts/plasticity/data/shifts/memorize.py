"""Random labels that never change: a control with nothing new to learn after the first task."""

import torch
from torch import Tensor

from plasticity.data.shift import BaseShift, Task


class Shift(BaseShift):
    """Every task has the same random permutation of the training labels.

    The number of images per class does not change. Test images have their true labels.
    """

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        n = task.problem.samples
        shuffled = labels[task.permutation("labels", n, index=0)]
        return inputs, torch.cat([shuffled, labels[n:]])
