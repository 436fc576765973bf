"""A fully connected network."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from plasticity.networks import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """Hidden layers `hidden_1` … with an activation each, then `output`; with the activation `identity` a deep linear network."""

    width: int
    depth: int

    def build(self, shape: tuple[int, int, int], outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten(-3))
        inputs = math.prod(shape)
        for level in range(1, self.depth + 1):
            layers[f"hidden_{level}"] = nn.Linear(inputs, self.width)
            layers[f"activation_{level}"] = activation()
            inputs = self.width
        layers["output"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)
