"""Networks: plain modules that know nothing of members and seeds, and the law of their initial weights."""

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
import xarray as xr
from torch import Tensor, nn

from plasticity.randomness import generator
from plasticity.settings import Network

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}
GAINS = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + 0.01**2)), "tanh": 5 / 3, "identity": 1.0}


def mlp(shape: tuple[int, int, int], classes: int, network: Network) -> nn.Sequential:
    """Hidden layers `hidden_1` … with an activation each, then `output`.

    Args:
        shape: of one image, ``(channel, row, column)``.
        classes: number of outputs.
        network: width, depth and activation.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten(-3))
    inputs = math.prod(shape)
    for level in range(1, network.depth + 1):
        layers[f"hidden_{level}"] = nn.Linear(inputs, network.width)
        layers[f"activation_{level}"] = ACTIVATIONS[network.activation]()
        inputs = network.width
    layers["output"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


KINDS: dict[str, Callable[[tuple[int, int, int], int, Network], nn.Module]] = {"mlp": mlp}


def build(network: Network, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The module that a config describes; its weights are not to be used: `initial` draws them."""
    return KINDS[network.kind](shape, classes, network)


def fitting(network: Network, data: xr.Dataset) -> nn.Module:
    """The module that a config describes, for the images and classes of a prepared dataset."""
    channel, row, column = (data.sizes[dim] for dim in ("channel", "row", "column"))
    return build(network, (channel, row, column), int(data["label"].max()) + 1)


def initial(module: nn.Module, network: Network, seed: int, task: int = 0) -> dict[str, Tensor]:
    """Fresh parameters by name, in float64: He et al. 2015, normal with variance gain² / fan-in; zero biases.

    Args:
        module: whose shapes.
        network: whose activation sets the gain of the hidden layers; the last layer's is 1.
        seed: of the member.
        task: each task has its own draw; a member starts with that of task 0.
    """
    draw = generator(seed, "initial", task)
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    parameters = {}
    for name, layer in layers:
        gain = 1.0 if name == layers[-1][0] else GAINS[network.activation]
        weight = draw.normal(0, gain / math.sqrt(layer.in_features), layer.weight.shape)
        parameters[f"{name}.weight"] = torch.from_numpy(weight)
        parameters[f"{name}.bias"] = torch.zeros(layer.out_features, dtype=torch.float64)
    return parameters
