"""Activations by name: what each computes, and the gain of the weights before it.

A layer's outputs z have the mean square gain² · mean(a²), with a what the activation φ of the layer before puts out (He et al.
2015, arXiv 1502.01852, section 2.2). It stays 1 if gain² = 1 / E[φ(z)²] with z standard normal; E[φ(z)²] is

- relu, leaky_relu, identity: 1/2, (1 + 0.01²)/2, 1;
- gelu: 1/3 + 1/(2√3 π), by Stein's identity E[z² Φ²] = E[Φ²] + E[(Φ²)″];
- sin: (1 − e⁻²)/2, by sin² z = (1 − cos 2z)/2;
- crelu, fourier: 1/2, the mean over the two that they make of one: relu(z)² + relu(−z)² = z², sin² z + cos² z = 1.

The gain of tanh is the 5/3 that torch recommends.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Gelu(nn.Module):
    """x · Φ(x) with Φ the normal distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    Not torch's, which on a CPU rounds the last few numbers of a tensor in another way: a run's would depend on its place.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return x * (0.5 * (1 + torch.erf(x * math.sqrt(0.5))))


class Sin(nn.Module):
    """sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return torch.sin(x)


class CReLU(nn.Module):
    """relu(x) and relu(−x), one behind the other along `dim` (Shang et al. 2016, arXiv 1603.05201)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Twice as long along `dim`."""
        return torch.cat([torch.relu(x), torch.relu(-x)], self.dim)


class Fourier(nn.Module):
    """sin(x) and cos(x), one behind the other along `dim`: deep Fourier features (Lewandowski et al. 2024, arXiv 2410.20634)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Twice as long along `dim`."""
        return torch.cat([torch.sin(x), torch.cos(x)], self.dim)


@dataclass(frozen=True)
class Activation:
    """One entry of the table.

    Attributes:
        module: its class.
        gain: of the weights before it.
        expansion: how many units it makes of one.
    """

    module: type[nn.Module]
    gain: float
    expansion: int = 1

    def __call__(self, dim: int = -1) -> nn.Module:
        """One of them; `dim` is where the units are, counted from the end: −1 after a linear layer, −3 after a convolution."""
        return self.module() if self.expansion == 1 else self.module(dim)


KINDS = {
    "relu": Activation(nn.ReLU, math.sqrt(2)),
    "leaky_relu": Activation(nn.LeakyReLU, math.sqrt(2 / (1 + 0.01**2))),
    "tanh": Activation(nn.Tanh, 5 / 3),
    "identity": Activation(nn.Identity, 1.0),
    "gelu": Activation(Gelu, 1 / math.sqrt(1 / 3 + 1 / (2 * math.sqrt(3) * math.pi))),
    "sin": Activation(Sin, math.sqrt(2 / (1 - math.exp(-2)))),
    "crelu": Activation(CReLU, math.sqrt(2), expansion=2),
    "fourier": Activation(Fourier, math.sqrt(2), expansion=2),
}
MODULES = tuple(activation.module for activation in KINDS.values())
