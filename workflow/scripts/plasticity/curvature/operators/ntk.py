"""The neural tangent kernel Θ = J Jᵀ over n (Jacot et al. 2018, arXiv 1806.07572).

J stacks the derivatives of all outputs of all samples. Θ/n has the nonzero eigenvalues of
(1/n) Σ Jᵢᵀ Jᵢ, a Gauss–Newton matrix that does not depend on the loss.
"""

import torch
from torch import Tensor

from plasticity.curvature.batch_loss import Loss
from plasticity.curvature.operator import OuterProducts


class Operator(OuterProducts):
    """The neural tangent kernel over the number of samples."""

    NAME = "NTK"
    MEANING = (
        "neural tangent kernel (products of all outputs' derivatives) over the number of samples"
    )

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return the identity: one column per output."""
        return torch.eye(outputs.shape[-1]).to(outputs).expand(*outputs.shape, -1)
