"""Pixels moved to other places, anew for every task, in all images alike (permuted MNIST: Goodfellow et al. 2013, arXiv 1312.6211)."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import Task, Unchanged


@dataclass(frozen=True)
class Shift(Unchanged):
    """The channels of a pixel move together. `first_task`: `changed`, or `original`: task 0 has the images as they are."""

    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if task.index == 0 and self.first_task == "original":
            return inputs, labels
        pixels = inputs.flatten(2)
        return pixels[:, :, task.permutation("pixels", pixels.shape[2])].view_as(inputs), labels
