"""Weight clipping: after each step every parameter of layer l is kept within ±bound · sₗ (Elsayed et al. 2024, arXiv 2407.01704).

There sₗ = 1/√fan-in is the bound of PyTorch's uniform initial law, for weights and biases. Left free: for other laws sₗ is
that of the uniform law of the same deviation, √3 times the deviation of the layer's weights. Norm layers are left alone.
Published grid: 1 to 5.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """The output layer, too."""

    bound: Tensor

    def setup(self, learner: Learner) -> None:
        deviations = learner.deviations()
        scales = {
            name: math.sqrt(3) * deviations[f"{name.rpartition('.')[0]}.weight"]
            for name in deviations
        }
        self._bound = (self.bound[:, None] * learner.of_each(scales)).where(
            ~learner.of_norms(), torch.inf
        )

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.clamp_(-self._bound, self._bound)
