"""A small vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929).

It has no class token and no dropout.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity.errors import StudyError
from plasticity.models.activations import Activation
from plasticity.models.architecture import Architecture, Positions


@dataclass(frozen=True)
class Network(Architecture):
    """Embedded patches, `depth` blocks, and `output` on the mean of the last block's tokens.

    Each `patch` × `patch` pixels become a token of `width` numbers. `width` must be a multiple of
    `heads`, and the sides of the images must be multiples of `patch`.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int = 4

    @property
    def width_multiple(self) -> int:
        return self.heads

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        channels, rows, columns = shape
        self._check_options(rows, columns)
        tokens = rows * columns // self.patch**2
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["patches"] = Patches(self.patch)
        layers["embedding"] = nn.Linear(channels * self.patch**2, self.width)
        layers["positions"] = Positions(tokens, self.width)
        for level in range(1, self.depth + 1):
            layers[f"block_{level}"] = Block(self.width, self.heads, activation)
        layers["norm"] = nn.LayerNorm(self.width)
        layers["mean"] = Mean()
        layers["output"] = nn.Linear(self.width, outputs)
        return nn.Sequential(layers)

    def _check_options(self, rows: int, columns: int) -> None:
        """Check that patches tile the images and that heads share the width evenly.

        Raises:
            StudyError: if they do not.
        """
        if rows % self.patch or columns % self.patch:
            raise StudyError(
                f"network.patch is {self.patch}, and the images have {rows} × {columns} pixels. "
                "Choose a network.patch that divides both."
            )
        if self.width % self.heads:
            raise StudyError(
                f"network.width is {self.width}, which is no multiple of the {self.heads} heads. "
                "Change network.width or network.heads."
            )


class Patches(nn.Module):
    """Cut images into square patches, in row-major order."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Cut images.

        Args:
            x: shape ``(n, channel, row, column)``.

        Returns:
            Tokens, shape ``(n, token, number)``. The pixels of a channel are contiguous in a token.
        """
        n, channels, rows, columns = x.shape
        grid = x.view(n, channels, rows // self.size, self.size, columns // self.size, self.size)
        return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Block(nn.Module):
    """Attention between tokens, then a hidden layer on each token.

    Both have their own norm before them and a shortcut around them.
    """

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.hidden_1 = nn.Linear(width, 4 * width)
        self.activation_1 = activation()
        self.hidden_2 = nn.Linear(activation.expansion * 4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens to tokens, both of shape ``(n, token, width)``."""
        x = x + self.attention(self.norm_1(x))
        outputs: Tensor = x + self.hidden_2(self.activation_1(self.hidden_1(self.norm_2(x))))
        return outputs


class Attention(nn.Module):
    """Self-attention with several heads (Vaswani et al. 2017, arXiv 1706.03762, section 3.2).

    It is written out so that it has second derivatives.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = width // heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens to tokens, both of shape ``(n, token, width)``."""
        heads = self.query_key_value(x).unflatten(-1, (3, self.heads, self.size))
        query, key, value = heads.transpose(-4, -2).unbind(-3)  # each (n, head, token, size)
        weights = torch.softmax(query @ key.mT / math.sqrt(self.size), dim=-1)
        outputs: Tensor = self.projection((weights @ value).transpose(-3, -2).flatten(-2))
        return outputs


class Mean(nn.Module):
    """Take the mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(n, token, width)`` to features ``(n, width)``."""
        return x.mean(-2)
