"""Stochastic gradient descent, with optional momentum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training import optimizer


@dataclass
class Optimizer(optimizer.Optimizer):
    """As in PyTorch: v ← momentum · v + g, θ ← θ − lr · v."""

    lr: float
    momentum: float = 0.0

    def setup(self, parameters: Tensor) -> None:
        self.means = {"velocity": torch.zeros_like(parameters)} if self.momentum else {}
        self.steps = torch.zeros(len(parameters), device=parameters.device)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        if self.momentum:
            gradient = self.means["velocity"].mul_(self.momentum).add_(gradient)
        parameters.sub_(gradient, alpha=self.lr)
