"""A small vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929), without class token and dropout."""

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
    """`depth` blocks on tokens of `width` numbers, one for each `patch` × `patch` pixels; the mean of the last goes to `output`.

    `width` is a multiple of `heads`, the sides of the images are multiples of `patch`.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int = 4

    @property
    def step(self) -> int:
        return self.heads

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        channel, row, column = shape
        if row % self.patch or column % self.patch:
            cut = f"a vit cuts images into patches of {self.patch} × {self.patch} pixels"
            raise StudyError(
                f"{cut}, and these have {row} × {column}: choose a network.patch that divides both"
            )
        if self.width % self.heads:
            raise StudyError(
                f"network.width is shared by the heads of a vit, and {self.width} is no multiple of {self.heads}: change either"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            patches=Patches(self.patch),
            embedding=nn.Linear(channel * self.patch**2, self.width),
            positions=Positions(row * column // self.patch**2, self.width),
        )
        for place in range(1, self.depth + 1):
            layers[f"block_{place}"] = Block(self.width, self.heads, activation)
        layers |= {
            "norm": nn.LayerNorm(self.width),
            "mean": Mean(),
            "output": nn.Linear(self.width, outputs),
        }
        return nn.Sequential(layers)


class Patches(nn.Module):
    """Cuts images ``(n, channel, row, column)`` into tokens ``(n, token, number)``, row by row, a channel's pixels together."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Images in, tokens out."""
        n, channel, row, column = x.shape
        cut = x.view(n, channel, row // self.size, self.size, column // self.size, self.size)
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Block(nn.Module):
    """Attention, then a hidden layer on each token, each after a norm of its own and with a shortcut around both."""

    def __init__(self, width: int, heads: int, activation: Activation) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.hidden_1 = nn.Linear(width, 4 * width)
        self.activation_1 = activation()
        self.hidden_2 = nn.Linear(activation.expansion * 4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out, both of shape ``(n, token, width)``."""
        x = x + self.attention(self.norm_1(x))
        outputs: Tensor = x + self.hidden_2(self.activation_1(self.hidden_1(self.norm_2(x))))
        return outputs


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv 1706.03762, section 3.2), written out: so it has second derivatives."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out, both of shape ``(n, token, width)``."""
        heads = self.query_key_value(x).unflatten(-1, (3, self.heads, self.size))
        query, key, value = heads.transpose(-4, -2).unbind(-3)  # (n, head, token, size) each
        shares = torch.softmax(query @ key.mT / math.sqrt(self.size), dim=-1)
        outputs: Tensor = self.projection((shares @ value).transpose(-3, -2).flatten(-2))
        return outputs


class Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(n, token, width)`` → ``(n, width)``."""
        return x.mean(-2)
