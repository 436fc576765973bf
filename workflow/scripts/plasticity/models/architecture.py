"""Networks, one file each: a class `Network` whose fields are its options, and which builds a plain module.

The modules know nothing of runs and seeds. The laws of their initial weights are here.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from plasticity.config import registry
from plasticity.config.models import Network, Setting
from plasticity.data import shift
from plasticity.errors import StudyError
from plasticity.models import activations, normalization
from plasticity.models.activations import Activation
from plasticity.models.normalization import BatchNorm
from plasticity.rng import generator


@dataclass(frozen=True)
class Architecture(ABC):
    """The base of all: what a file's class must do."""

    @property
    def step(self) -> int:
        """Which multiples its option `width` may be, where it has one."""
        return 1

    @abstractmethod
    def build(self, shape: tuple[int, int, int], outputs: int, activation: Activation) -> nn.Module:
        """A module whose last linear layer is called `output`; its weights are not to be used: `initial` draws them.

        Args:
            shape: of one image, ``(channel, row, column)``.
            outputs: how many.
            activation: makes one; the layer after it has `activation.expansion` times as many inputs.

        Raises:
            StudyError: images that it cannot look at, options that contradict each other.
        """


class Positions(nn.Module):
    """Adds to each token a learned vector of its place."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out, both of shape ``(n, token, width)``."""
        return x + self.weight


def build(network: Network, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The module that a config describes; its weights are not to be used: `initial` draws them.

    A `matched` network whose activation makes more than one unit of each is narrower than its option `width` says: it has as nearly
    as can be the number of parameters that it would have with relu.
    """
    architecture = registry.build("architectures", network.kind, network.options)
    activation = activations.KINDS[network.activation]
    if network.matched and activation.expansion > 1:
        architecture = _matched(architecture, shape, outputs, activation)
    module: nn.Module = architecture.build(shape, outputs, activation)
    return module


def _matched(
    architecture: Any, shape: tuple[int, int, int], outputs: int, activation: Activation
) -> Architecture:
    """The same but for its width: the one that `build` promises; the number of parameters grows with it."""

    def count(one: Architecture, activation: Activation = activation) -> int:
        with torch.device("meta"):
            return sum(
                parameter.numel()
                for parameter in one.build(shape, outputs, activation).parameters()
            )

    wanted = count(architecture, activations.KINDS["relu"])
    widths = range(architecture.step, architecture.width + 1, architecture.step)
    choices: list[Architecture] = [replace(architecture, width=width) for width in widths]
    enough = bisect_left(choices, wanted, key=count)
    return min(choices[max(0, enough - 1) : enough + 1], key=lambda one: abs(count(one) - wanted))


def fitting(setting: Setting, data: xr.Dataset) -> nn.Module:
    """The module that a setting describes, for the images of a prepared dataset and the outputs of its problem.

    Raises:
        StudyError: images that it cannot look at, options that contradict each other or the problem.
    """
    channel, row, column = (data.sizes[dim] for dim in ("channel", "row", "column"))
    outputs = shift.of(setting.problem).outputs(data.sizes["class"])
    network, problem = build(setting.network, (channel, row, column), outputs), setting.problem
    if 1 in (problem.batch, problem.test_samples) and any(
        isinstance(layer, BatchNorm) for layer in network.modules()
    ):
        raise StudyError(
            "batch norm has no statistics of one image: raise problem.batch or problem.test_samples, or set another network.norm"
        )
    return network


def initial(
    module: nn.Module, network: Network, seed: int, task: int = 0, purpose: str = "initial"
) -> dict[str, Tensor]:
    """Fresh parameters by name, in float64, in the order of `named_parameters`, in which they are drawn.

    The law of linear layers and convolutions is `network.initialization`. Their fan-in is the number of inputs that one output sees,
    their fan-out that of outputs times the places of the kernel; biases are 0 unless it says otherwise:

    - he: normal with variance gain² / fan-in (He et al. 2015, arXiv 1502.01852).
    - xavier: normal with variance gain² · 2 / (fan-in + fan-out) (Glorot & Bengio 2010, equation 12).
    - orthogonal: gain times a matrix, a row per output, whose rows or columns (whichever are fewer) are orthonormal, uniform among
      those (Saxe et al. 2013, arXiv 1312.6120).
    - pytorch: weights and biases uniform between ±1 / √fan-in, which torch starts from.

    Weights of norm layers are 1, their biases 0. Positions are normal with deviation 0.02.

    Args:
        module: whose shapes.
        network: whose activation sets the gain of all layers but the last linear one, whose gain is 1.
        seed: of the run.
        task: each task has its own draw; a run starts with that of task 0.
        purpose: each purpose, too.

    Raises:
        StudyError: a layer whose parameters have no rule here.
    """
    draw = generator(seed, purpose, task)
    parameters = {}
    for (name, parameter), deviation in zip(
        module.named_parameters(), deviations(module, network).values(), strict=True
    ):
        layer = module.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, normalization.LAYERS):
            value = np.full(parameter.shape, float(parameter is layer.weight))
        elif isinstance(layer, Positions):
            value = draw.normal(0, deviation, parameter.shape)
        elif network.initialization == "pytorch":
            value = draw.uniform(-1, 1, parameter.shape) * (math.sqrt(3) * deviation)
        elif parameter is layer.bias:
            value = np.zeros(parameter.shape)
        elif network.initialization == "orthogonal":
            value = _orthogonal(draw, parameter.shape, deviation)
        else:
            value = draw.normal(0, deviation, parameter.shape)
        parameters[name] = torch.from_numpy(value)
    return parameters


def deviations(module: nn.Module, network: Network) -> dict[str, float]:
    """The standard deviation of each parameter's initial law, by name; 0 for what starts as a constant.

    Raises:
        StudyError: a layer whose parameters have no rule here.
    """
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    found = {}
    for name, parameter in module.named_parameters():
        layer = module.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, Positions):
            found[name] = 0.02
        elif isinstance(layer, normalization.LAYERS):
            found[name] = 0.0
        elif not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise StudyError(
                f"networks.initial does not know how to draw {name}, of a {type(layer).__name__}: add a rule for such layers"
            )
        else:
            gain = 1.0 if layer in last else activations.KINDS[network.activation].gain
            of_weight = _DEVIATIONS[network.initialization](layer.weight.shape, gain)
            found[name] = (
                of_weight
                if parameter is layer.weight or network.initialization == "pytorch"
                else 0.0
            )
    return found


def _orthogonal(draw: np.random.Generator, shape: Sequence[int], deviation: float) -> np.ndarray:
    rows, columns = shape[0], math.prod(shape[1:])
    # torch's, which keeps to the one thread of `ensemble.make_deterministic`: the same bytes on any number of cores
    Q, R = torch.linalg.qr(
        torch.from_numpy(draw.normal(size=(max(rows, columns), min(rows, columns))))
    )
    Q = Q * R.diagonal().sign()  # or it would not be uniform (Mezzadri 2006, arXiv math-ph/0609050)
    weights: np.ndarray = (
        deviation
        * math.sqrt(max(rows, columns))
        * (Q if rows >= columns else Q.T).numpy().reshape(shape)
    )
    return weights


# of a weight's shape, (outputs, inputs) and a kernel's (row, column), and the gain
_DEVIATIONS: dict[str, Callable[[Sequence[int], float], float]] = {
    "he": lambda shape, gain: gain / math.sqrt(math.prod(shape[1:])),
    "xavier": lambda shape, gain: (
        gain * math.sqrt(2 / (math.prod(shape[1:]) + shape[0] * math.prod(shape[2:])))
    ),
    "orthogonal": lambda shape, gain: gain / math.sqrt(max(shape[0], math.prod(shape[1:]))),
    "pytorch": lambda shape, gain: 1 / math.sqrt(3 * math.prod(shape[1:])),
}
