"""ResNet-18 (He et al. 2015, arXiv 1512.03385) for small images.

The stem is a 3 × 3 convolution with stride 1, without max-pooling.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from plasticity.models import normalization
from plasticity.models.activations import Activation
from plasticity.models.architecture import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """Four stages of two blocks. The first stage has `width` channels, and each stage doubles them.

    The paper has a `width` of 64. `norm` is `batch`, `layer` or `none`. Convolutions have biases
    only if `norm` is `none`.
    """

    width: int = 64
    norm: str = "batch"

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv_1"] = _build_convolution(shape[0], self.width, 3, 1, self.norm)
        layers["norm_1"] = normalization.build_norm(self.norm, self.width, -3)
        layers["activation_1"] = activation(-3)
        channels = activation.expansion * self.width
        for stage in range(1, 5):
            width = self.width * 2 ** (stage - 1)
            stride = 1 if stage == 1 else 2
            first = Block(channels, width, stride, self.norm, activation)
            channels = activation.expansion * width
            second = Block(channels, width, 1, self.norm, activation)
            layers[f"stage_{stage}"] = nn.Sequential(OrderedDict(block_1=first, block_2=second))
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten(-3)
        layers["output"] = nn.Linear(channels, outputs)
        return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions with a shortcut. A stride of 2 halves rows and columns.

    If the stride is 2 or the number of channels changes, the shortcut is a 1 × 1 convolution
    (option B of the paper). With an activation that doubles the channels, most blocks change them.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, norm: str, activation: Activation
    ) -> None:
        super().__init__()
        self.conv_1 = _build_convolution(inputs, width, 3, stride, norm)
        self.norm_1 = normalization.build_norm(norm, width, -3)
        self.activation_1 = activation(-3)
        self.conv_2 = _build_convolution(activation.expansion * width, width, 3, 1, norm)
        self.norm_2 = normalization.build_norm(norm, width, -3)
        self.activation_2 = activation(-3)
        self.shortcut = nn.Sequential()  # nn.Identity would count as an activation
        if stride > 1 or inputs != width:
            self.shortcut.conv = _build_convolution(inputs, width, 1, stride, norm)
            self.shortcut.norm = normalization.build_norm(norm, width, -3)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features, both of shape ``(n, channel, row, column)``."""
        # computed first, so that hooks see norm_2 as the last layer before activation_2
        shortcut = self.shortcut(x)
        x = self.activation_1(self.norm_1(self.conv_1(x)))
        outputs: Tensor = self.activation_2(self.norm_2(self.conv_2(x)) + shortcut)
        return outputs


def _build_convolution(inputs: int, outputs: int, size: int, stride: int, norm: str) -> nn.Conv2d:
    """Build a padded convolution. It has a bias only without a norm, which has its own bias."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=norm == "none")
