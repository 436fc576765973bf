"""The network that L2-init was studied on (Kumar et al. 2023, arXiv 2308.11958): two convolutions, two hidden layers, `output`."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from plasticity.errors import StudyError
from plasticity.models import normalization
from plasticity.models.activations import Activation
from plasticity.models.architecture import Architecture

CHANNELS = 16


@dataclass(frozen=True)
class Network(Architecture):
    """The convolutions have 16 channels and no padding; the hidden layers have that study's 100 units unless `width` says otherwise.

    With a `norm` (`layer` or `batch`) one is before each activation: `norm_1` … `norm_4`.
    """

    width: int = 100
    norm: str = "none"

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        channel, row, column = shape
        if min(row, column) < 16:
            raise StudyError(
                f"a cnn needs images of at least 16 × 16 pixels, and these have {row} × {column}: choose another network.kind"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def activate(place: int, units: int, dim: int) -> int:
            """Add norm and activation; how many units they put out."""
            if self.norm != "none":
                layers[f"norm_{place}"] = normalization.build(self.norm, units, dim)
            layers[f"activation_{place}"] = activation(dim)
            return activation.expansion * units

        for place in (1, 2):
            layers[f"conv_{place}"] = nn.Conv2d(channel, CHANNELS, 5)
            channel = activate(place, CHANNELS, -3)
            layers[f"pool_{place}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten(-3)
        inputs = channel * ((row - 12) // 4) * ((column - 12) // 4)
        for place in (1, 2):
            layers[f"hidden_{place}"] = nn.Linear(inputs, self.width)
            inputs = activate(place + 2, self.width, -1)
        layers["output"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)
