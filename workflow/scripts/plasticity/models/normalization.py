"""Normalisation before an activation, by name."""

import torch
from torch import Tensor, nn

from plasticity.errors import StudyError


class BatchNorm(nn.Module):
    """Batch norm (Ioffe & Szegedy 2015, arXiv 1502.03167) by the statistics of the batch at hand, of which it keeps none.

    So a network is a pure function of its parameters and its batch. In training mode mean and variance are functions of the batch,
    through which gradients flow, and a sample's output depends on the others. In eval mode, in which curvature is taken, they are
    constants: so each sample has a gradient of its own. The outputs are the same.
    """

    EPSILON = 1e-5

    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """Each unit to mean 0 and variance 1, then scaled and shifted; shape ``(n, unit)`` or ``(n, unit, row, column)``."""
        if self.training:
            return nn.functional.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.EPSILON
            )
        variance, mean = torch.var_mean(x.detach(), [0, *range(2, x.ndim)], correction=0)
        return nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.EPSILON)


LAYERS = (nn.LayerNorm, nn.GroupNorm, BatchNorm)


def build(kind: str, units: int, dim: int = -1) -> nn.Module:
    """A layer that normalises; of ``none``, one that does nothing.

    Args:
        kind: ``none``, ``layer`` or ``batch``.
        units: how many.
        dim: where they are: −1 after a linear layer; −3 after a convolution, where ``layer`` means each image's channels and places
            together, with a weight and a bias per channel (one group: Wu & He 2018, arXiv 1803.08494, section 3).

    Raises:
        StudyError: another kind.
    """
    match kind:
        case "none":
            return nn.Sequential()  # not nn.Identity, which is one of the activations
        case "layer":
            return nn.LayerNorm(units) if dim == -1 else nn.GroupNorm(1, units)
        case "batch":
            return BatchNorm(units)
    raise StudyError(f"network.norm is one of none, layer and batch, and not {kind!r}")
