"""Slowly-changing regression (Dohare et al. 2024, Nature 632:768, and arXiv 2108.06325, section 3): a new input bit flips at every task."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plasticity.data.shift import Task, Unchanged
from plasticity.errors import StudyError

HIDDEN, BETA = (
    100,
    0.7,
)  # units of the target network; how far below the largest sum of their weights their thresholds lie


@dataclass(frozen=True)
class Shift(Unchanged):
    """The first `flipping` inputs are the same in all images of a task, and one of them, drawn, differs from the task before.

    The others are those of the image. A target is the output of a fixed random network of the seed's own, as that study describes it: it
    looks at 0 and 1, has linear threshold units with weights and biases ±1, and sums those that fire with weights ±1 and a bias ±1.
    """

    LOSS = "squared_error"

    flipping: int = 15

    def outputs(self, classes: int) -> int:
        return 1

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        bits = (inputs.flatten(1) > 0).double()
        if self.flipping > bits.shape[1]:
            raise StudyError(
                f"problem.flipping is {self.flipping}, but an image of {task.problem.dataset} has only {bits.shape[1]} inputs: lower it"
            )
        bits[:, : self.flipping] = torch.from_numpy(self._state(task))
        draw, width = task.generator("target", 0), bits.shape[1] + 1
        weights, heads = (
            torch.from_numpy(2.0 * draw.integers(0, 2, shape) - 1)
            for shape in ((width, HIDDEN), (HIDDEN + 1,))
        )
        thresholds = BETA * width - (weights < 0).sum(dim=0)
        fires = bits @ weights[:-1] + weights[-1] >= thresholds
        targets = fires.double() @ heads[:-1] + heads[-1]
        return (2 * bits - 1).view_as(inputs).to(inputs.dtype), targets.to(inputs.dtype)

    def _state(self, task: Task) -> np.ndarray:
        """The flipping bits: of task 0 drawn, then one changed at every task."""
        state = task.generator("bits", 0).integers(0, 2, self.flipping).astype(float)
        for index in range(1, task.index + 1):
            flipped = task.generator("bits", index).integers(self.flipping)
            state[flipped] = 1 - state[flipped]
        return state
