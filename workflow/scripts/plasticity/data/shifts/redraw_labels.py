"""A fraction of the labels is redrawn for every task: how abrupt must a shift be?

The question is from Lyle et al. 2023 (arXiv 2303.01486).
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import BaseShift, Task


@dataclass(frozen=True)
class Shift(BaseShift):
    """Each task draws images that exchange their labels. All others have the previous labels.

    The number of images per class does not change. Images pass their labels around a cycle, so with
    a `fraction` of 1 an image keeps its label only by chance. Test images have their true labels.
    `first_task` is `changed`, if task 0 has all labels shuffled, or `original`, if it has the true
    labels.
    """

    EQUALLY_HARD = (
        False  # true labels are easier to learn than labels that depend less and less on images
    )

    fraction: float
    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        n = task.problem.samples
        redrawn_labels = labels.clone()
        if self.first_task == "changed":
            redrawn_labels[:n] = labels[task.permutation("labels", n, index=0)]
        for index in range(1, task.index + 1):
            cycle = task.permutation("labels", n, index)[: round(self.fraction * n)]
            redrawn_labels[cycle] = redrawn_labels[cycle.roll(1)]
        return inputs, redrawn_labels
