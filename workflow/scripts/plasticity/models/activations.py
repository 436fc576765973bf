"""Activations by name, and the gain of the weights before each of them.

The mean square of a layer's outputs z is gain² · mean(a²), where a = φ(previous z) are its inputs
and φ is the activation (He et al. 2015, arXiv 1502.01852, section 2.2). It stays 1 through all
layers if gain² = 1 / E[φ(z)²] for standard normal z. The values of E[φ(z)²] are:

- relu: 1/2. leaky_relu: (1 + 0.01²)/2. identity: 1.
- gelu: 1/3 + 1/(2√3 π), by Stein's identity E[z² Φ²] = E[Φ²] + E[(Φ²)″].
- sin: (1 − e⁻²)/2, because sin² z = (1 − cos 2z)/2.
- crelu, fourier: 1/2, the mean over the two outputs per unit, because relu(z)² + relu(−z)² = z² and
  sin² z + cos² z = 1.

The gain of tanh is 5/3, which torch recommends.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Gelu(nn.Module):
    """Compute x · Φ(x), where Φ is the normal distribution function.

    Source: Hendrycks & Gimpel 2016, arXiv 1606.08415. Torch's own gelu rounds the last few elements
    of a CPU tensor differently, so a run's numbers would depend on its position in the ensemble.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return x * (0.5 * (1 + torch.erf(x * math.sqrt(0.5))))


class Sin(nn.Module):
    """Compute sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each element."""
        return torch.sin(x)


class CReLU(nn.Module):
    """Concatenate relu(x) and relu(−x) along `dim` (Shang et al. 2016, arXiv 1603.05201)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor that is twice as long along `dim`."""
        return torch.cat([torch.relu(x), torch.relu(-x)], self.dim)


class Fourier(nn.Module):
    """Concatenate sin(x) and cos(x) along `dim`.

    These are the deep Fourier features of Lewandowski et al. 2024 (arXiv 2410.20634).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor that is twice as long along `dim`."""
        return torch.cat([torch.sin(x), torch.cos(x)], self.dim)


@dataclass(frozen=True)
class Activation:
    """An activation, and what the layers around it need to know.

    Attributes:
        module: class of the activation.
        gain: gain of the weights before it.
        expansion: number of outputs per unit.
    """

    module: type[nn.Module]
    gain: float
    expansion: int = 1

    def __call__(self, dim: int = -1) -> nn.Module:
        """Build the activation.

        Args:
            dim: dim of the units, counted from the end: −1 after a linear layer, −3 after a
                convolution.
        """
        return self.module() if self.expansion == 1 else self.module(dim)


ACTIVATIONS = {
    "relu": Activation(nn.ReLU, math.sqrt(2)),
    "leaky_relu": Activation(nn.LeakyReLU, math.sqrt(2 / (1 + 0.01**2))),
    "tanh": Activation(nn.Tanh, 5 / 3),
    "identity": Activation(nn.Identity, 1.0),
    "gelu": Activation(Gelu, 1 / math.sqrt(1 / 3 + 1 / (2 * math.sqrt(3) * math.pi))),
    "sin": Activation(Sin, math.sqrt(2 / (1 - math.exp(-2)))),
    "crelu": Activation(CReLU, math.sqrt(2), expansion=2),
    "fourier": Activation(Fourier, math.sqrt(2), expansion=2),
}
ACTIVATION_CLASSES = tuple(activation.module for activation in ACTIVATIONS.values())


def slopes(activation: nn.Module, inputs: Tensor) -> Tensor:
    """Compute the derivative of each output of an activation by the number it is computed from.

    Args:
        activation: of one of `ACTIVATION_CLASSES`.
        inputs: any shape.

    Returns:
        The shape of the outputs.
    """
    dim = getattr(activation, "dim", -1)
    expansion = next(
        kind.expansion for kind in ACTIVATIONS.values() if isinstance(activation, kind.module)
    )

    def total(inputs: Tensor, part: int) -> Tensor:
        # not the module itself, because a call would run its hooks
        outputs: Tensor = activation.forward(inputs)
        return outputs.chunk(expansion, dim)[part].sum()

    return torch.cat([torch.func.grad(total)(inputs, part) for part in range(expansion)], dim)
