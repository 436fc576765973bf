"""Architectures, one file each in `architectures/`, and the initial weights of all networks.

Each file has a class `Network`. Its fields are its options, and its `build` returns a plain module
that knows nothing of runs and seeds.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
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

UNIFORM = ("he_uniform", "pytorch")  # initializations; the others are normal or orthogonal
POSITION_STD = 0.02  # of the initial position embeddings


@dataclass(frozen=True)
class Architecture(ABC):
    """Base class of every `Network`."""

    @property
    def width_multiple(self) -> int:
        """Return the number of which the option `width` must be a multiple."""
        return 1

    @abstractmethod
    def build(self, shape: tuple[int, int, int], outputs: int, activation: Activation) -> nn.Module:
        """Build a module whose last linear layer is called `output`.

        Its weights are placeholders, because `initial` draws the weights.

        Args:
            shape: shape of one image, ``(channel, row, column)``.
            outputs: number of outputs.
            activation: builds an activation. The layer after it has `activation.expansion` times as
                many inputs.

        Raises:
            StudyError: if it cannot process such images, or if its options contradict each other.
        """


class Positions(nn.Module):
    """Add a learned vector to each token, one vector per position."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens to tokens, both of shape ``(n, token, width)``."""
        return x + self.weight


def build(network: Network, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """Build the module that a config describes. Its weights are placeholders, see `initial`.

    If a network is `matched` and its activation has several outputs per unit, the module is
    narrower than the option `width`. Its number of parameters is then as close as possible to that
    of the same network with relu.

    Args:
        network: the network in the config.
        shape: shape of one image, ``(channel, row, column)``.
        outputs: number of outputs.
    """
    architecture = registry.build("architectures", network.kind, network.options)
    activation = activations.ACTIVATIONS[network.activation]
    if network.matched and activation.expansion > 1:
        architecture = _match_parameters(architecture, shape, outputs, activation)
    module: nn.Module = architecture.build(shape, outputs, activation)
    return module


def build_for(setting: Setting, data: xr.Dataset) -> nn.Module:
    """Build the module of a setting, for the images of a dataset and the outputs of its problem.

    Args:
        setting: problem and network.
        data: a prepared dataset.

    Raises:
        StudyError: if the network cannot process the images, or if its options contradict each
            other or the problem.
    """
    problem = setting.problem
    shape = (data.sizes["channel"], data.sizes["row"], data.sizes["column"])
    outputs = shift.build_shift(problem).outputs(data.sizes["class"])
    module = build(setting.network, shape, outputs)
    has_batch_norm = any(isinstance(layer, BatchNorm) for layer in module.modules())
    if has_batch_norm and 1 in (problem.batch, problem.test_samples):
        raise StudyError(
            "batch norm has no statistics of one image. "
            "Raise problem.batch or problem.test_samples, or choose another network.norm."
        )
    return module


def draw_initial(
    module: nn.Module, network: Network, seed: int, task: int = 0, purpose: str = "initial"
) -> dict[str, Tensor]:
    """Draw initial parameters.

    `network.initialization` names the distribution of linear layers and convolutions. Fan-in is the
    number of inputs of one output. Fan-out is the number of outputs times the size of the kernel.
    Biases are 0 unless noted.

    - he: normal with variance gain² / fan-in (He et al. 2015, arXiv 1502.01852).
    - he_uniform: uniform with the same variance, which torch calls Kaiming-uniform.
    - xavier: normal with variance gain² · 2 / (fan-in + fan-out) (Glorot & Bengio 2010,
      equation 12).
    - orthogonal: gain times a matrix with one row per output. Its rows or columns, whichever are
      fewer, are orthonormal, and it is uniform among such matrices (Saxe et al. 2013,
      arXiv 1312.6120).
    - pytorch: weights and biases are uniform in ±1 / √fan-in, torch's default.

    The gain is that of the network's activation, and 1 for the last linear layer. Norm layers start
    with weights 1 and biases 0. Position embeddings are normal with standard deviation 0.02.

    Args:
        module: gives names and shapes.
        network: gives the initialization and the activation.
        seed: seed of the run.
        task: each task has its own draw. A run starts with the draw of task 0.
        purpose: each purpose has its own draw.

    Returns:
        Tensors in float64, by name of the parameter, in the order of `named_parameters`. They are
        drawn in this order.

    Raises:
        StudyError: if a layer is of an unknown kind.
    """
    draw = generator(seed, purpose, task)
    stds = initial_stds(module, network)
    parameters = {}
    for name, parameter in module.named_parameters():
        layer = _layer_of(module, name)
        value = _draw_parameter(draw, layer, parameter, stds[name], network.initialization)
        parameters[name] = torch.from_numpy(value)
    return parameters


def initial_stds(module: nn.Module, network: Network) -> dict[str, float]:
    """Compute the standard deviation of each initial parameter's distribution.

    Args:
        module: gives names and shapes.
        network: gives the initialization and the activation.

    Returns:
        Standard deviations by name of the parameter; 0 for parameters that start as a constant.

    Raises:
        StudyError: if a layer is of an unknown kind.
    """
    linear_layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    last_layer = linear_layers[-1] if linear_layers else None
    hidden_gain = activations.ACTIVATIONS[network.activation].gain
    stds = {}
    for name, parameter in module.named_parameters():
        layer = _layer_of(module, name)
        if isinstance(layer, Positions):
            stds[name] = POSITION_STD
        elif isinstance(layer, normalization.NORM_CLASSES):
            stds[name] = 0.0
        elif not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise StudyError(
                f"there is no initial distribution for {name}, a parameter of a "
                f"{type(layer).__name__}. Add one for such layers to models/architecture.py."
            )
        elif parameter is layer.weight or network.initialization == "pytorch":
            gain = 1.0 if layer is last_layer else hidden_gain
            stds[name] = _weight_std(network.initialization, layer.weight.shape, gain)
        else:
            stds[name] = 0.0
    return stds


def _match_parameters(
    architecture: Any, shape: tuple[int, int, int], outputs: int, activation: Activation
) -> Architecture:
    """Return the architecture with the width that `build` describes.

    The search relies on the number of parameters growing with the width.
    """
    target = _count_parameters(architecture, shape, outputs, activations.ACTIVATIONS["relu"])

    def count(candidate: Architecture) -> int:
        return _count_parameters(candidate, shape, outputs, activation)

    def distance(candidate: Architecture) -> int:
        return abs(count(candidate) - target)

    multiple = architecture.width_multiple
    widths = range(multiple, architecture.width + 1, multiple)
    candidates: list[Architecture] = [replace(architecture, width=width) for width in widths]
    first_above = bisect_left(candidates, target, key=count)
    return min(candidates[max(0, first_above - 1) : first_above + 1], key=distance)


def _count_parameters(
    architecture: Architecture, shape: tuple[int, int, int], outputs: int, activation: Activation
) -> int:
    """Count parameters without allocating them."""
    with torch.device("meta"):
        module = architecture.build(shape, outputs, activation)
    return sum(parameter.numel() for parameter in module.parameters())


def _layer_of(module: nn.Module, name: str) -> Any:
    """Return the layer that holds a parameter."""
    return module.get_submodule(name.rpartition(".")[0])


def _draw_parameter(
    draw: np.random.Generator, layer: Any, parameter: Tensor, std: float, initialization: str
) -> np.ndarray:
    """Draw one parameter as `initial` describes.

    Args:
        draw: generator; a constant draws nothing from it.
        layer: the layer that holds the parameter.
        parameter: gives the shape.
        std: standard deviation of its distribution.
        initialization: key of `network.initialization`.

    Returns:
        float64, in the shape of the parameter.
    """
    shape = parameter.shape
    if isinstance(layer, normalization.NORM_CLASSES):
        return np.full(shape, float(parameter is layer.weight))
    if isinstance(layer, Positions):
        return draw.normal(0, std, shape)
    if parameter is layer.bias and initialization != "pytorch":
        return np.zeros(shape)
    if initialization in UNIFORM:
        return draw.uniform(-1, 1, shape) * (math.sqrt(3) * std)
    if initialization == "orthogonal":
        return _draw_orthogonal(draw, shape, std)
    return draw.normal(0, std, shape)


def _draw_orthogonal(draw: np.random.Generator, shape: Sequence[int], std: float) -> np.ndarray:
    """Draw a multiple of a matrix with orthonormal rows or columns, whichever are fewer.

    Args:
        draw: generator.
        shape: shape of the weight, ``(output, …)``.
        std: standard deviation of its elements.

    Returns:
        float64, of shape `shape`.
    """
    rows, columns = shape[0], math.prod(shape[1:])
    longer, shorter = max(rows, columns), min(rows, columns)
    # torch's qr runs on the one thread of `ensemble.make_deterministic`, so its bytes do not depend
    # on the number of cores
    Q, R = torch.linalg.qr(torch.from_numpy(draw.normal(size=(longer, shorter))))
    Q = Q * R.diagonal().sign()  # makes Q uniform (Mezzadri 2006, arXiv math-ph/0609050)
    matrix = Q if rows >= columns else Q.T
    gain = std * math.sqrt(longer)
    weights: np.ndarray = gain * matrix.numpy().reshape(shape)
    return weights


def _weight_std(initialization: str, shape: Sequence[int], gain: float) -> float:
    """Compute the standard deviation of a weight.

    Args:
        initialization: key of `network.initialization`.
        shape: ``(output, input)``, or ``(output, input, row, column)`` for a convolution.
        gain: gain of the layer.
    """
    outputs, fan_in = shape[0], math.prod(shape[1:])
    fan_out = outputs * math.prod(shape[2:])
    stds = {
        "he": gain / math.sqrt(fan_in),
        "he_uniform": gain / math.sqrt(fan_in),
        "xavier": gain * math.sqrt(2 / (fan_in + fan_out)),
        "orthogonal": gain / math.sqrt(max(outputs, fan_in)),
        "pytorch": 1 / math.sqrt(3 * fan_in),
    }
    return stds[initialization]
