"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from plasticity.training.optimizers import adam


@dataclass
class Optimizer(adam.Optimizer):
    """As in PyTorch: before each step θ ← (1 − lr · weight_decay) θ, for biases too."""

    lr: float
    betas: Sequence[float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        parameters.mul_(1 - self.lr * self.weight_decay)
        super().step(parameters, gradient)
