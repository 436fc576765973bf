"""Wasserstein regularization: λ · ½ Σ over tensors of Σᵢ (w₍ᵢ₎ − w⁰₍ᵢ₎)² (arXiv 2312.00246; its order p = 2 is inferred).

In one dimension the optimal transport between the weights' current and initial empirical distributions pairs them by rank,
so a tensor's distance is that of its sorted values. Weights may move freely as long as their distribution stays.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plasticity.lockstep import Parameters
from plasticity.methods import Intervention


@dataclass
class Method(Intervention):
    """Each tensor by itself, biases too; ranks are those of the very step.

    A weight's partner, the initial value of its rank, does not change with the weight (almost everywhere), so the gradient needs
    the ranks alone and none is taken through a sort.
    """

    strength: Tensor

    def begin(self, parameters: Parameters) -> None:
        self.initial = {name: tensor.detach().flatten(1).sort(dim=1).values for name, tensor in parameters.tensors.items()}

    def penalty(self, parameters: Parameters) -> Tensor:
        partners = [
            torch.empty_like(self.initial[name]).scatter_(1, _order(tensor.detach().flatten(1)), self.initial[name])
            for name, tensor in parameters.tensors.items()
        ]
        return self.strength / 2 * (parameters.flat - torch.cat(partners, dim=1)).square().sum(dim=1)


def _order(values: Tensor) -> Tensor:
    """Indices that sort each row; on a CPU by numpy, whose argsort is vectorised."""
    return torch.from_numpy(np.argsort(values.numpy(), axis=1)) if values.device.type == "cpu" else values.argsort(dim=1)
