"""The neural tangent kernel Θ = J Jᵀ of all samples' outputs (Jacot et al. 2018, arXiv 1806.07572), over their number n.

Its nonzero spectrum is that of (1/n) Σ Jᵢᵀ Jᵢ: a Gauss–Newton matrix that knows no loss.
"""

import torch
from torch import Tensor

from plasticity.curvature.gram import Loss
from plasticity.curvature.operator import OuterProducts


class Operator(OuterProducts):
    """The neural tangent kernel over the number of samples (products of the derivatives of all outputs)."""

    NAME = "NTK"
    MEANING = (
        "neural tangent kernel (products of all outputs' derivatives) over the number of samples"
    )

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """The identity: a column per output."""
        return torch.eye(outputs.shape[-1]).to(outputs).expand(*outputs.shape, -1)
