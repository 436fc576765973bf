"""Parseval regularization: strength · Σₗ ‖Wₗ Wₗᵀ − sₗ I‖² (Chung et al. 2024, equation 2).

arXiv 2412.07224. The sum is over hidden layers. Rows of a weight stay orthogonal and keep their
initial length.

Our choices:

- A layer with more outputs than inputs has orthogonal columns, as it cannot have orthogonal rows.
  For the same sₗ the two penalties differ by a constant.
- sₗ is the mean squared length of those rows or columns under the initial distribution. For rows
  with initialization `he` it is the squared gain: the authors' 2 with relu.
- The authors' factor (64 / width)² is part of the strength.
- `kernels` says how a convolution is a matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention
from plasticity.training.weight_matrices import weight_matrices


@dataclass
class Method(Intervention):
    """Not on the output layer, biases and norms."""

    CHOICES = {"kernels": ["flat", "places"]}
    NEEDS = {"kernels": ["cnn", "resnet18"]}

    strength: Tensor
    kernels: str = ""

    def setup(self, learner: Learner) -> None:
        deviations = learner.deviations()
        matrices = weight_matrices(learner, self.kernels)
        self._scales = {
            name: max(W.shape[2:]) * deviations[f"{name}.weight"] ** 2
            for name, W in matrices.items()
            if name != "output"
        }

    def penalty(self, learner: Learner) -> Tensor:
        matrices = weight_matrices(learner, self.kernels)
        distances = []
        for name, scale in self._scales.items():
            W = matrices[name]
            gram = W @ W.mT if W.shape[2] <= W.shape[3] else W.mT @ W
            target = scale * torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
            distances.append((gram - target).square().sum(dim=(1, 2, 3)))
        return self.strength * torch.stack(distances).sum(dim=0)
