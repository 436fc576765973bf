"""The empirical Fisher: F = (1/n) Σ gᵢ gᵢᵀ, with gᵢ the gradient of sample i's loss on its given label."""

import torch
from torch import Tensor

from plasticity.curvature.gram import Loss
from plasticity.curvature.operator import OuterProducts


class Operator(OuterProducts):
    """The empirical Fisher (mean outer product of per-sample gradients on the given labels)."""

    NAME = "Fisher"
    MEANING = "empirical Fisher (mean outer product of per-sample gradients on the given labels)"
    EXACT = True

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """One: the gradient of a sample's loss at its outputs."""
        return torch.autograd.grad(loss(outputs, targets).sum(), outputs, retain_graph=True)[0][
            ..., None
        ]
