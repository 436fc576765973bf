"""Weight clipping: clip all parameters of layer l to ±bound · sₗ (Elsayed et al. 2024).

arXiv 2407.01704. Parameters are clipped after each step. sₗ = 1/√fan-in is the bound of PyTorch's
uniform initial distribution, for weights and biases. Our choice: for another initialization, sₗ is
the bound of the uniform distribution with the same standard deviation, √3 times that of the layer's
weights. Norm layers are not clipped. The published grid is 1 to 5.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """The output layer is clipped, too."""

    bound: Tensor

    def setup(self, learner: Learner) -> None:
        deviations = learner.deviations()
        scales = {}
        for name in deviations:
            layer = name.rpartition(".")[0]
            scales[name] = math.sqrt(3) * deviations[f"{layer}.weight"]
        bound = self.bound[:, None] * learner.per_parameter(scales)
        self._bound = bound.where(~learner.norm_mask(), torch.inf)

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.clamp_(-self._bound, self._bound)
