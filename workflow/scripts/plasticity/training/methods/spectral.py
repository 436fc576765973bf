"""Spectral regularization: strength · Σₗ [(σ₁(Wₗ)^power − 1)² + ‖bₗ‖^(2 power)] (Lewandowski et al. 2024, arXiv 2406.06811).

The largest singular value of each linear layer and convolution is drawn to 1, biases to 0. σ₁ = uᵀ W v, with u and v from
one power iteration a step that starts where the last one ended, and constant to the gradient. Left free: a norm's gain is
taken for a diagonal matrix, whose largest singular value is its largest magnitude; `kernels` says how a convolution is a
matrix; of several matrices the penalty is a sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.models import normalization
from plasticity.training import weight_matrices
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default


@dataclass
class Method(Intervention):
    """The published grids of strengths are powers of ten; `power` is theirs."""

    CHOICES = {"kernels": ["flat", "places"]}
    NEEDS = {"kernels": ["cnn", "resnet18"]}

    strength: Tensor
    power: Tensor = default(2)
    kernels: str = ""

    def setup(self, learner: Learner) -> None:
        found = weight_matrices.of_layers(learner, self.kernels)
        # the same start whatever the seed: no singular vector is orthogonal to it
        self.right = {
            name: W.new_ones(*W.shape[:2], W.shape[3], 1).detach() / W.shape[3] ** 0.5
            for name, W in found.items()
        }

    def state(self) -> dict[str, Tensor]:
        return self.right

    def penalty(self, learner: Learner) -> Tensor:
        norms, squares = [], []
        for name, W in weight_matrices.of_layers(learner, self.kernels).items():
            with torch.no_grad():
                left = _unit(_product(W, self.right[name]))
                self.right[name].copy_(_unit(_product(W.mT, left)))
            norms.append(_product(_product(left.mT, W), self.right[name]).flatten(1))
        for name, tensor in learner.parameters.tensors.items():
            layer, _, part = name.rpartition(".")
            if part == "bias":
                squares.append(tensor.square().sum(dim=1, keepdim=True))
            elif isinstance(learner.network.get_submodule(layer), normalization.LAYERS):
                norms.append(tensor.abs().amax(dim=1, keepdim=True))
        power, least = (
            self.power[:, None],
            torch.finfo(learner.dtype).tiny,
        )  # a power below 1 has no slope at 0, where biases start
        distances = [(norm.abs().clamp(min=least) ** power - 1).square() for norm in norms]
        distances += [square.clamp(min=least) ** power for square in squares]
        return self.strength * torch.cat(distances, dim=1).sum(dim=1)


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Of matrices, shapes ``(run, matrix, …, …)``; a lone run's would be another routine's, which rounds in another way."""
    product: Tensor = (
        (one.expand(2, -1, -1, -1) @ other.expand(2, -1, -1, -1))[:1]
        if len(one) == 1
        else one @ other
    )
    return product


def _unit(vector: Tensor) -> Tensor:
    """Of length 1, shape ``(…, n, 1)``."""
    unit: Tensor = vector / torch.linalg.vector_norm(vector, dim=-2, keepdim=True).clamp(
        min=torch.finfo(vector.dtype).tiny
    )
    return unit
