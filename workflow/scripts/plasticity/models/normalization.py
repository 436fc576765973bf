"""Normalization layers, by name."""

import torch
from torch import Tensor, nn

from plasticity.errors import StudyError


class BatchNorm(nn.Module):
    """Batch norm (Ioffe & Szegedy 2015, arXiv 1502.03167) without running statistics.

    It always uses the statistics of the current batch, so a network is a pure function of its
    parameters and its batch. Both modes have the same outputs, but different gradients:

    - In training mode, mean and variance are functions of the batch, and gradients flow through
      them.
    - In eval mode, in which curvature is computed, mean and variance are constants. So the gradient
      of a sample does not depend on other samples.
    """

    EPSILON = 1e-5

    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each unit, then scale and shift it.

        Args:
            x: shape ``(n, unit)`` or ``(n, unit, row, column)``.

        Returns:
            Same shape.
        """
        if self.training:
            return nn.functional.batch_norm(
                x, None, None, self.weight, self.bias, training=True, eps=self.EPSILON
            )
        dims = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(x.detach(), dims, correction=0)
        return nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.EPSILON)


NORM_CLASSES = (nn.LayerNorm, nn.GroupNorm, BatchNorm)


def build_norm(kind: str, units: int, dim: int = -1) -> nn.Module:
    """Build a normalization layer.

    Args:
        kind: ``none``, ``layer`` or ``batch``. ``none`` builds a layer that does nothing.
        units: number of units or channels.
        dim: dim of the units: −1 after a linear layer, −3 after a convolution. After a convolution,
            ``layer`` normalizes all channels and pixels of an image together and has one weight
            and one bias per channel (group norm with one group: Wu & He 2018, arXiv 1803.08494,
            section 3).

    Raises:
        StudyError: if `kind` is unknown.
    """
    match kind:
        case "none":
            return nn.Sequential()  # nn.Identity would count as an activation
        case "layer":
            return nn.LayerNorm(units) if dim == -1 else nn.GroupNorm(1, units)
        case "batch":
            return BatchNorm(units)
    raise StudyError(f"network.norm is {kind!r}. Choose none, layer or batch.")
