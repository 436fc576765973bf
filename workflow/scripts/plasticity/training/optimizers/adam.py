"""Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training import optimizer

EPSILON = 1e-8


@dataclass
class Optimizer(optimizer.Optimizer):
    """PyTorch's defaults, except for the step size, which has none."""

    lr: float
    betas: Sequence[float] = (0.9, 0.999)

    def setup(self, parameters: Tensor) -> None:
        self.means = {"first": torch.zeros_like(parameters), "second": torch.zeros_like(parameters)}
        self.steps = torch.zeros(len(parameters), device=parameters.device)

    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        torch._fused_adam_(
            parameters.unbind(),
            gradient.unbind(),
            self.means["first"].unbind(),
            self.means["second"].unbind(),
            [],  # only AMSGrad keeps a maximum
            self.steps.unbind(),
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
