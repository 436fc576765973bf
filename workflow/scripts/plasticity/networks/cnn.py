"""The network that L2-init was studied on (Kumar et al. 2023, arXiv 2308.11958): two convolutions, two hidden layers, `output`."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from plasticity.errors import StudyError
from plasticity.networks import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """The convolutions have 16 channels and no padding; the hidden layers have that study's 100 units unless `width` says otherwise."""

    width: int = 100

    def build(self, shape: tuple[int, int, int], outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
        channel, row, column = shape
        if min(row, column) < 16:
            raise StudyError(f"a cnn needs images of at least 16 × 16 pixels, and these have {row} × {column}: choose another network.kind")
        return nn.Sequential(
            OrderedDict(
                conv_1=nn.Conv2d(channel, 16, 5),
                activation_1=activation(),
                pool_1=nn.MaxPool2d(2),
                conv_2=nn.Conv2d(16, 16, 5),
                activation_2=activation(),
                pool_2=nn.MaxPool2d(2),
                flatten=nn.Flatten(-3),
                hidden_1=nn.Linear(16 * ((row - 12) // 4) * ((column - 12) // 4), self.width),
                activation_3=activation(),
                hidden_2=nn.Linear(self.width, self.width),
                activation_4=activation(),
                output=nn.Linear(self.width, outputs),
            )
        )
