"""A fraction of the labels is redrawn at every task, to ask how abrupt a change must be (Lyle et al. 2023, arXiv 2303.01486)."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.data.shift import Task, Unchanged


@dataclass(frozen=True)
class Shift(Unchanged):
    """Images drawn anew for each task hand their labels on to one another; all others keep those of the task before.

    So class counts are kept, and with a `fraction` of 1 no image keeps its label but by chance. Test images keep their true labels.
    `first_task`: `changed` (all labels shuffled) or `original` (the true ones).
    """

    ALIKE = False  # the truth is learned sooner than what has less and less to do with the images

    fraction: float
    first_task: str = "changed"

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        n, now = task.problem.samples, labels.clone()
        if self.first_task == "changed":
            now[:n] = labels[task.permutation("labels", n, index=0)]
        for index in range(1, task.index + 1):
            redrawn = task.permutation("labels", n, index)[: round(self.fraction * n)]
            now[redrawn] = now[redrawn.roll(1)]
        return inputs, now
