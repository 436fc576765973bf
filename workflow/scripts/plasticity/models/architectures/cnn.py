"""The convolutional network of the L2 Init paper (Kumar et al. 2023, arXiv 2308.11958)."""

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
    """Two convolutions without padding, two hidden layers, and `output`.

    A convolution has 16 channels, and a hidden layer has `width` units; the paper has 100. A `norm`
    other than `none` adds the layers `norm_1` to `norm_4` before the activations.
    """

    width: int = 100
    norm: str = "none"

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        channels, rows, columns = shape
        if min(rows, columns) < 16:
            raise StudyError(
                "the network cnn needs images of at least 16 × 16 pixels, and these have "
                f"{rows} × {columns}. Choose another network.kind."
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for level in (1, 2):
            layers[f"conv_{level}"] = nn.Conv2d(channels, CHANNELS, 5)
            self._add_activation(layers, level, CHANNELS, -3, activation)
            layers[f"pool_{level}"] = nn.MaxPool2d(2)
            channels = activation.expansion * CHANNELS
        layers["flatten"] = nn.Flatten(-3)
        inputs = channels * ((rows - 12) // 4) * ((columns - 12) // 4)
        for level in (1, 2):
            layers[f"hidden_{level}"] = nn.Linear(inputs, self.width)
            self._add_activation(layers, level + 2, self.width, -1, activation)
            inputs = activation.expansion * self.width
        layers["output"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)

    def _add_activation(
        self,
        layers: OrderedDict[str, nn.Module],
        level: int,
        units: int,
        dim: int,
        activation: Activation,
    ) -> None:
        """Append an activation, with its norm layer if there is one."""
        if self.norm != "none":
            layers[f"norm_{level}"] = normalization.build_norm(self.norm, units, dim)
        layers[f"activation_{level}"] = activation(dim)
