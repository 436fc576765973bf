"""L2-ER: L2 regularization and a high effective rank of the features (He et al. 2025, "Spectral Collapse", arXiv 2509.22335).

strength · ½ ‖θ‖² − rank · mean over hidden layers of erank(H), H the layer's ``(row, unit)`` matrix of activations on the
batch, uncentred, and erank(H) = exp(−Σ pᵢ log pᵢ), pᵢ = σᵢ / Σ σ (Roy & Vetterli 2007). Left free: both terms are part of
the loss of each step, where the authors' code has the second in steps of its own, with its own step size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """`rank` is the strength of the second term."""

    WATCHES = True

    strength: Tensor
    rank: Tensor

    def penalty(self, learner: Learner) -> Tensor:
        ranks = [entropy_rank(features) for features in learner.hidden.values()]
        return self.strength / 2 * learner.parameters.flat.square().sum(
            dim=1
        ) - self.rank * torch.stack(ranks).mean(dim=0)


def entropy_rank(features: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values, shape ``(run, row, unit)`` → ``(run,)``; 1 if not all is finite."""
    finite = (
        features.isfinite().flatten(1).all(dim=1)[:, None, None]
    )  # LAPACK would refuse all runs for one
    values = torch.linalg.svdvals(features.where(finite, 0))
    total = values.sum(dim=1, keepdim=True)
    shares = values / total.where(
        total > 0, 1
    )  # of a dead layer 0, and the slopes there are finite
    # as in the authors' code: the slope at a share of 0 is finite
    rank: Tensor = (-(shares * (shares + 1e-8).log()).sum(dim=1)).exp()
    return rank
