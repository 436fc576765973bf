"""A fully connected network."""

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from plasticity.models import normalization
from plasticity.models.activations import Activation
from plasticity.models.architecture import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """Hidden layers `hidden_1` … with an activation each, then `output`; with the activation `identity` a deep linear network.

    With a `norm` (`layer` or `batch`) one is before each activation: `norm_1` ….
    """

    width: int
    depth: int
    norm: str = "none"

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten(-3))
        inputs = math.prod(shape)
        for level in range(1, self.depth + 1):
            layers[f"hidden_{level}"] = nn.Linear(inputs, self.width)
            if self.norm != "none":
                layers[f"norm_{level}"] = normalization.build(self.norm, self.width)
            layers[f"activation_{level}"] = activation()
            inputs = activation.expansion * self.width
        layers["output"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)
