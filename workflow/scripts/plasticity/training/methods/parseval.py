"""Parseval regularization: strength · Σₗ ‖Wₗ Wₗᵀ − sₗ I‖² over the hidden layers (Chung et al. 2024, arXiv 2412.07224, equation 2).

Rows of a weight stay orthogonal and as long as they began. Left free: where a layer has more outputs than inputs, its
columns are meant, as no more rows than inputs can be orthogonal (for the same sₗ the two penalties differ by a constant);
sₗ is the mean squared length of those rows or columns under the initial law (for rows the squared gain with initialization
`he`, the authors' 2 with relu); their factor (64 / width)² is part of the strength; `kernels` says how a convolution is a
matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training import weight_matrices
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """The last layer, the biases and norms are left alone."""

    CHOICES = {"kernels": ["flat", "places"]}
    NEEDS = {"kernels": ["cnn", "resnet18"]}

    strength: Tensor
    kernels: str = ""

    def setup(self, learner: Learner) -> None:
        deviations = learner.deviations()
        self._scales = {
            name: max(W.shape[2:]) * deviations[f"{name}.weight"] ** 2
            for name, W in weight_matrices.of_layers(learner, self.kernels).items()
            if name != "output"
        }

    def penalty(self, learner: Learner) -> Tensor:
        found, distances = weight_matrices.of_layers(learner, self.kernels), []
        for name, scale in self._scales.items():
            W = found[name]
            gram = W @ W.mT if W.shape[2] <= W.shape[3] else W.mT @ W
            aim = scale * torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
            distances.append((gram - aim).square().sum(dim=(1, 2, 3)))
        return self.strength * torch.stack(distances).sum(dim=0)
