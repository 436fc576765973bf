"""ResNet-18 (He et al. 2015, arXiv 1512.03385) for small images: a 3 × 3 stem with stride 1, no max-pool."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from plasticity.networks import Architecture


@dataclass(frozen=True)
class Network(Architecture):
    """`width` is that of the first of four stages, each twice as wide as the one before; 64 is the standard.

    Batch norm takes the statistics of the batch at hand, in training and in measuring alike, and keeps none: so a network is a pure
    function of its parameters and its batch, and a sample's output depends on the others of its batch.
    """

    width: int = 64

    def build(self, shape: tuple[int, int, int], outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
        width = self.width
        return nn.Sequential(
            OrderedDict(
                conv_1=nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
                norm_1=nn.BatchNorm2d(width, track_running_stats=False),
                activation_1=activation(),
                stage_1=_stage(width, width, activation),
                stage_2=_stage(width, 2 * width, activation),
                stage_3=_stage(2 * width, 4 * width, activation),
                stage_4=_stage(4 * width, 8 * width, activation),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(-3),
                output=nn.Linear(8 * width, outputs),
            )
        )


def _stage(inputs: int, outputs: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Two blocks; the first changes the number of channels."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict(
        block_1=Block(inputs, outputs, activation), block_2=Block(outputs, outputs, activation)
    )
    return nn.Sequential(blocks)


class Block(nn.Module):
    """Two convolutions and a shortcut around them; with twice the channels it leaves half the rows and columns."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(outputs, track_running_stats=False)
        self.activation_1 = activation()
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs, track_running_stats=False)
        self.activation_2 = activation()
        self.shortcut = nn.Sequential()  # not nn.Identity, which is one of the activations
        if stride > 1:
            self.shortcut.conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut.norm = nn.BatchNorm2d(outputs, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images in, features out, both of shape ``(n, channel, row, column)``."""
        shortcut = self.shortcut(x)  # first: to whoever watches the calls, the layer before activation_2 is norm_2
        x = self.activation_1(self.norm_1(self.conv_1(x)))
        outputs: Tensor = self.activation_2(self.norm_2(self.conv_2(x)) + shortcut)
        return outputs
