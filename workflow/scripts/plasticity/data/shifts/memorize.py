"""Random labels, one task for ever: the control with nothing new to learn after the first task."""

import torch
from torch import Tensor

from plasticity.data.shift import Task, Unchanged


class Shift(Unchanged):
    """Labels permuted across the images once, the same in every task; class counts are kept. Test images keep their true labels."""

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        n = task.problem.samples
        return inputs, torch.cat([labels[task.permutation("labels", n, index=0)], labels[n:]])
