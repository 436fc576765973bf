"""Networks, one file each: a class `Network` whose fields are its options, and which builds a plain module.

The modules know nothing of members and seeds. The law of their initial weights is here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from plasticity import changes, registry
from plasticity.errors import StudyError
from plasticity.randomness import generator
from plasticity.settings import Network, Setting

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}
GAINS = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + 0.01**2)), "tanh": 5 / 3, "identity": 1.0}


@dataclass(frozen=True)
class Architecture:
    """The base of all: what a file's class must do."""

    def build(self, shape: tuple[int, int, int], outputs: int, activation: Callable[[], nn.Module]) -> nn.Module:
        """A module whose last linear layer is called `output`; its weights are not to be used: `initial` draws them.

        Args:
            shape: of one image, ``(channel, row, column)``.
            outputs: how many.
            activation: makes one.

        Raises:
            StudyError: images that it cannot look at.
        """
        raise NotImplementedError


def build(network: Network, shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """The module that a config describes; its weights are not to be used: `initial` draws them."""
    architecture: Architecture = registry.build("networks", network.kind, network.options)
    return architecture.build(shape, outputs, ACTIVATIONS[network.activation])


def fitting(setting: Setting, data: xr.Dataset) -> nn.Module:
    """The module that a setting describes, for the images of a prepared dataset and the outputs of its problem."""
    channel, row, column = (data.sizes[dim] for dim in ("channel", "row", "column"))
    outputs = changes.of(setting.problem).outputs(data.sizes["class"])
    return build(setting.network, (channel, row, column), outputs)


def initial(module: nn.Module, network: Network, seed: int, task: int = 0) -> dict[str, Tensor]:
    """Fresh parameters by name, in float64, in the order of `named_parameters`, in which they are drawn.

    Linear layers and convolutions as in He et al. 2015 (arXiv 1502.01852): normal with variance gain² / fan-in, where the fan-in
    is the number of inputs that one output sees. Weights of batch norm are 1, all biases 0.

    Args:
        module: whose shapes.
        network: whose activation sets the gain of all layers but the last linear one, whose gain is 1.
        seed: of the member.
        task: each task has its own draw; a member starts with that of task 0.

    Raises:
        StudyError: a layer whose parameters have no rule here.
    """
    draw = generator(seed, "initial", task)
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    parameters = {}
    for name, parameter in module.named_parameters():
        layer = module.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            raise StudyError(f"networks.initial does not know how to draw {name}, of a {type(layer).__name__}: add a rule for such layers")
        if parameter is layer.bias:
            value = np.zeros(parameter.shape)
        elif isinstance(layer, nn.BatchNorm2d):
            value = np.ones(parameter.shape)
        else:
            gain = 1.0 if layer in last else GAINS[network.activation]
            value = draw.normal(0, gain / math.sqrt(parameter[0].numel()), parameter.shape)
        parameters[name] = torch.from_numpy(value)
    return parameters
