"""Spectral regularization (Lewandowski et al. 2024, arXiv 2406.06811).

The penalty is strength · Σₗ [(σ₁(Wₗ)^power − 1)² + ‖bₗ‖^(2 power)]. It pulls the largest singular
value of each linear layer and convolution toward 1, and biases toward 0. σ₁ = uᵀ W v, where u and v
come from one power iteration per step, which continues that of the last step. The gradient takes u
and v as constant.

Our choices: a norm's gain is a diagonal matrix, whose largest singular value is its largest
magnitude. `kernels` says how a convolution is a matrix. If it is several, the penalty is a sum over
them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.models import normalization
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default
from plasticity.training.weight_matrices import weight_matrices


@dataclass
class Method(Intervention):
    """`power` as in the paper, whose grids of strengths are powers of ten."""

    CHOICES = {"kernels": ["flat", "places"]}
    NEEDS = {"kernels": ["cnn", "resnet18"]}

    strength: Tensor
    power: Tensor = default(2)
    kernels: str = ""

    def setup(self, learner: Learner) -> None:
        # a constant vector is the same for all seeds, and no singular vector is orthogonal to it
        self.right = {
            name: W.new_ones(*W.shape[:2], W.shape[3], 1).detach() / W.shape[3] ** 0.5
            for name, W in weight_matrices(learner, self.kernels).items()
        }

    def state(self) -> dict[str, Tensor]:
        return self.right

    def penalty(self, learner: Learner) -> Tensor:
        norms = self._singular_values(learner)
        squares = []
        for name, tensor in learner.parameters.tensors.items():
            layer, _, part = name.rpartition(".")
            if part == "bias":
                squares.append(tensor.square().sum(dim=1, keepdim=True))
            elif isinstance(learner.network.get_submodule(layer), normalization.NORM_CLASSES):
                norms.append(tensor.abs().amax(dim=1, keepdim=True))
        power = self.power[:, None]
        # a power below 1 has no gradient at 0, where biases start
        least = torch.finfo(learner.dtype).tiny
        distances = [(norm.abs().clamp(min=least) ** power - 1).square() for norm in norms]
        distances += [square.clamp(min=least) ** power for square in squares]
        return self.strength * torch.cat(distances, dim=1).sum(dim=1)

    def _singular_values(self, learner: Learner) -> list[Tensor]:
        """Estimate the largest singular value of each matrix, shapes ``(run, matrix)``."""
        values = []
        for name, W in weight_matrices(learner, self.kernels).items():
            right = self.right[name]
            with torch.no_grad():
                left = _normalize(_product(W, right))
                right.copy_(_normalize(_product(W.mT, left)))
            values.append(_product(_product(left.mT, W), right).flatten(1))
        return values


def _product(A: Tensor, B: Tensor) -> Tensor:
    """Multiply matrices of shapes ``(run, matrix, …, …)``."""
    if len(A) == 1:
        # the product of one run would go to another routine, which rounds differently
        return _product(A.expand(2, -1, -1, -1), B.expand(2, -1, -1, -1))[:1]
    product: Tensor = A @ B
    return product


def _normalize(vectors: Tensor) -> Tensor:
    """Divide vectors of shape ``(…, n, 1)`` by their length."""
    lengths = torch.linalg.vector_norm(vectors, dim=-2, keepdim=True)
    unit: Tensor = vectors / lengths.clamp(min=torch.finfo(vectors.dtype).tiny)
    return unit
