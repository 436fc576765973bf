"""A new permutation of the pixels in every task.

This is permuted MNIST (Goodfellow et al. 2013, arXiv 1312.6211).
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import BaseShift, Task


@dataclass(frozen=True)
class Shift(BaseShift):
    """All images of a task have the same permutation, and so have all channels.

    `first_task` is `changed`, or `original` if task 0 has the original images.
    """

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        pixels = inputs.flatten(2)
        order = task.permutation("pixels", pixels.shape[2])
        return pixels[:, :, order].view_as(inputs), labels
