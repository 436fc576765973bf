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
    """Hidden layers `hidden_1`, …, each with an activation, then `output`.

    A `norm` other than `none` adds the layers `norm_1`, … before the activations. With the
    activation `identity` this is a deep linear network.
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
                layers[f"norm_{level}"] = normalization.build_norm(self.norm, self.width)
            layers[f"activation_{level}"] = activation()
            inputs = activation.expansion * self.width
        layers["output"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)
