"""Optimizers over all members at once: one matrix of parameters, a row per member.

Ours, not `torch.optim`'s: that one's import of the compiler takes three seconds a job, and its fused step on a CPU rounds a row by
where it lies in memory, so that a member's numbers would depend on its neighbours.
"""

import math

import torch
from torch import Tensor

from plasticity.settings import Optimizer


class Adam:
    """Adam with PyTorch's defaults β = (0.9, 0.999), ε = 1e-8 (Kingma & Ba 2015, algorithm 1).

    Attributes:
        first, second: running means of the gradient and of its square, shape ``(member, parameter)``.
        steps: taken since the state was last forgotten.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, parameters: Tensor, lr: float) -> None:
        """Start without memory, for parameters of shape ``(member, parameter)``."""
        self.lr = lr
        self.first, self.second = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.steps = 0

    def forget(self) -> None:
        """Clear the state, as if no step had been taken."""
        self.first.zero_()
        self.second.zero_()
        self.steps = 0

    def update(self, gradient: Tensor) -> Tensor:
        """What to add to the parameters, given the gradient of this step; both of shape ``(member, parameter)``."""
        self.steps += 1
        decay, decay_squares = self.BETAS
        self.first.lerp_(gradient, 1 - decay)
        self.second.mul_(decay_squares).addcmul_(gradient, gradient, value=1 - decay_squares)
        scale = self.second.sqrt().div_(math.sqrt(1 - decay_squares**self.steps)).add_(self.EPSILON)
        return torch.div(self.first, scale, out=scale).mul_(-self.lr / (1 - decay**self.steps))


KINDS = {"adam": Adam}


def build(optimizer: Optimizer, parameters: Tensor) -> Adam:
    """The optimizer that a setting describes, for parameters of shape ``(member, parameter)``."""
    return KINDS[optimizer.kind](parameters.detach(), optimizer.lr)
