"""ResNet-18 (He et al. 2015, arXiv 1512.03385) for small images: a 3 × 3 stem with stride 1, no max-pool."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from plasticity.models import normalization
from plasticity.models.activations import Activation
from plasticity.models.architecture import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """`width` is that of the first of four stages, each twice as wide as the one before; 64 is the standard.

    `norm` is `batch`, `layer` or `none`; without one the convolutions have biases.
    """

    width: int = 64
    norm: str = "batch"

    def build(
        self, shape: tuple[int, int, int], outputs: int, activation: Activation
    ) -> nn.Sequential:
        stem = _convolution(shape[0], self.width, 3, 1, self.norm)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv_1=stem,
            norm_1=normalization.build(self.norm, self.width, -3),
            activation_1=activation(-3),
        )
        channels = activation.expansion * self.width
        for stage in range(1, 5):
            width = self.width * 2 ** (stage - 1)
            first = Block(channels, width, 1 if stage == 1 else 2, self.norm, activation)
            channels = activation.expansion * width
            second = Block(channels, width, 1, self.norm, activation)
            layers[f"stage_{stage}"] = nn.Sequential(OrderedDict(block_1=first, block_2=second))
        layers |= {
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(-3),
            "output": nn.Linear(channels, outputs),
        }
        return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions and a shortcut around them; with a stride of 2 it leaves half the rows and columns.

    Where it does, and where the number of channels changes (as it does in most blocks if the activation doubles it), the shortcut is a
    1 × 1 convolution (that paper's option B).
    """

    def __init__(
        self, inputs: int, width: int, stride: int, norm: str, activation: Activation
    ) -> None:
        super().__init__()
        self.conv_1 = _convolution(inputs, width, 3, stride, norm)
        self.norm_1 = normalization.build(norm, width, -3)
        self.activation_1 = activation(-3)
        self.conv_2 = _convolution(activation.expansion * width, width, 3, 1, norm)
        self.norm_2 = normalization.build(norm, width, -3)
        self.activation_2 = activation(-3)
        self.shortcut = nn.Sequential()  # not nn.Identity, which is one of the activations
        if stride > 1 or inputs != width:
            self.shortcut.conv = _convolution(inputs, width, 1, stride, norm)
            self.shortcut.norm = normalization.build(norm, width, -3)

    def forward(self, x: Tensor) -> Tensor:
        """Images in, features out, both of shape ``(n, channel, row, column)``."""
        shortcut = self.shortcut(
            x
        )  # first: to whoever watches the calls, the layer before activation_2 is norm_2
        x = self.activation_1(self.norm_1(self.conv_1(x)))
        outputs: Tensor = self.activation_2(self.norm_2(self.conv_2(x)) + shortcut)
        return outputs


def _convolution(inputs: int, outputs: int, size: int, stride: int, norm: str) -> nn.Conv2d:
    """One that keeps rows and columns, but for the stride; a norm has a bias of its own."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=norm == "none")
