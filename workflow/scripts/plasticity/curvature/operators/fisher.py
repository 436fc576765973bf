"""The empirical Fisher matrix F = (1/n) Σ gᵢ gᵢᵀ.

gᵢ is the gradient of the loss of sample i on its given label (Kunstner et al. 2019,
arXiv 1905.12558).
"""

from torch import Tensor

from plasticity.curvature.batch_loss import Loss
from plasticity.curvature.gram import loss_gradients
from plasticity.curvature.operator import OuterProducts


class Operator(OuterProducts):
    """The empirical Fisher (mean outer product of per-sample gradients on the given labels)."""

    NAME = "Fisher"
    MEANING = "empirical Fisher (mean outer product of per-sample gradients on the given labels)"
    EXACT = True

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return one column: the gradient of each sample's loss at its outputs."""
        return loss_gradients(outputs, targets, loss)
