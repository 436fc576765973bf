"""Slowly changing regression: one input bit flips at every task boundary.

The problem is from Dohare et al. 2024 (Nature 632:768) and arXiv 2108.06325, section 3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plasticity.data.shift import BaseShift, Task
from plasticity.errors import StudyError

HIDDEN = 100  # units of the target network
BETA = 0.7  # sets the thresholds of these units, as in the paper


@dataclass(frozen=True)
class Shift(BaseShift):
    """The first `flipping` inputs are equal in all images of a task, and one flips per boundary.

    The other inputs are those of the image. A target is the output of a fixed random network of the
    seed, as in the paper. That network sees inputs 0 and 1. Its hidden units are linear threshold
    units with weights and biases ±1, and its output sums them with weights ±1 and a bias ±1.
    """

    LOSS = "squared_error"

    flipping: int = 15

    def outputs(self, classes: int) -> int:
        return 1

    def alter(self, task: Task, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        bits = (inputs.flatten(1) > 0).double()
        if self.flipping > bits.shape[1]:
            raise StudyError(
                f"problem.flipping is {self.flipping}, but an image of {task.problem.dataset} has "
                f"only {bits.shape[1]} inputs. Lower problem.flipping."
            )
        bits[:, : self.flipping] = torch.from_numpy(self._flipping_bits(task))
        targets = _target_network_outputs(task, bits)
        signs = 2 * bits - 1
        return signs.view_as(inputs).to(inputs.dtype), targets.to(inputs.dtype)

    def _flipping_bits(self, task: Task) -> np.ndarray:
        """Draw the flipping bits of task 0, then flip one for every task up to this one.

        Returns:
            0 and 1 in float64, shape ``(flipping,)``.
        """
        bits = task.generator("bits", 0).integers(0, 2, self.flipping).astype(float)
        for index in range(1, task.index + 1):
            flipped = task.generator("bits", index).integers(self.flipping)
            bits[flipped] = 1 - bits[flipped]
        return bits


def _target_network_outputs(task: Task, bits: Tensor) -> Tensor:
    """Draw the target network of a seed and apply it.

    A unit with k negative weights fires if its weighted sum reaches BETA · (inputs + 1) − k.

    Args:
        task: any task of the seed.
        bits: 0 and 1 in float64, shape ``(n, input)``.

    Returns:
        Targets, shape ``(n,)``.
    """
    draw = task.generator("target", 0)
    inputs_and_bias = bits.shape[1] + 1
    weights = _draw_signs(draw, (inputs_and_bias, HIDDEN))
    output_weights = _draw_signs(draw, (HIDDEN + 1,))
    thresholds = BETA * inputs_and_bias - (weights < 0).sum(dim=0)
    fires = bits @ weights[:-1] + weights[-1] >= thresholds
    return fires.double() @ output_weights[:-1] + output_weights[-1]


def _draw_signs(draw: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw −1 and 1 with equal probability, in float64."""
    return torch.from_numpy(2.0 * draw.integers(0, 2, shape) - 1)
