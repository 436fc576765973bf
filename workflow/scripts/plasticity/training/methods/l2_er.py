"""L2-ER: L2 regularization and a high effective rank of features (He et al. 2025).

From "Spectral Collapse", arXiv 2509.22335. The penalty is strength · ½ ‖θ‖² − rank · mean over
hidden layers of erank(H). H is the layer's ``(row, unit)`` matrix of activations on the batch, not
centred. erank(H) = exp(−Σ pᵢ log pᵢ) with pᵢ = σᵢ / Σ σ (Roy & Vetterli 2007).

Our choice: both terms are in the loss of each step. In the authors' code the second has steps of
its own, with its own step size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """`rank` is the strength of the second term."""

    USES_ACTIVATIONS = True
    WAITS_FOR_DEVICE = True  # torch checks on the host whether the singular values converged

    strength: Tensor
    rank: Tensor

    def penalty(self, learner: Learner) -> Tensor:
        squares = learner.parameters.flat.square().sum(dim=1)
        ranks = [entropy_rank(features) for features in learner.hidden.values()]
        return self.strength / 2 * squares - self.rank * torch.stack(ranks).mean(dim=0)


def entropy_rank(features: Tensor) -> Tensor:
    """Compute the exponential of the entropy of singular values.

    Args:
        features: shape ``(run, row, unit)``.

    Returns:
        Shape ``(run,)``; 1 for a run whose features are not all finite.
    """
    finite = features.isfinite().flatten(1).all(dim=1)[:, None, None]
    # LAPACK would refuse all runs because of one
    values = torch.linalg.svdvals(features.where(finite, 0))
    total = values.sum(dim=1, keepdim=True)
    # the shares of a dead layer are 0, with a finite gradient
    shares = values / total.where(total > 0, 1)
    # as in the authors' code, the added number makes the gradient finite at a share of 0
    rank: Tensor = (-(shares * (shares + 1e-8).log()).sum(dim=1)).exp()
    return rank
