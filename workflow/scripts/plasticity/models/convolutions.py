"""Convolutional networks of one run on a CPU, in a fast memory layout.

oneDNN computes torch's convolutions on blocks of 16 channels. So it reorders tensors in torch's
default layout before and after each call, and torch's max-pooling reads them number by number.

- In a sequence of convolutions, ReLUs and max-pooling, a run's images enter oneDNN's layout once,
  pass through all layers, and leave it at the end: `forward`.
- In other networks, and where activations are recorded, images have channels last:
  `with_fast_layout`.

oneDNN's ReLU and max-pooling drop NaN, which would hide that a run has diverged. So only runs
without a chance of overflow may be computed here, see `cannot_overflow`.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ReLU, nn.MaxPool2d)


def with_fast_layout(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the inputs of a run with channels last, if the network has convolutions in float32.

    Args:
        network: a plain module.
        inputs: shape ``(n, …)``.
    """
    has_convolutions = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
    if not has_convolutions or inputs.ndim != 4 or inputs.dtype != torch.float32:
        return inputs
    return inputs.contiguous(memory_format=torch.channels_last)


def supports(network: nn.Module, inputs: Tensor) -> bool:
    """Answer whether `forward` computes this network on these inputs.

    It does so for a sequence of plain convolutions, ReLUs and max-pooling in float32. oneDNN has
    fast functions for x86 processors only.
    """
    return (
        type(network) is nn.Sequential
        and len(network) == len(list(network.children()))  # no layer appears twice
        and all(_is_supported(layer) for layer in network)
        and inputs.ndim == 5
        and inputs.dtype == torch.float32
        and inputs.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    )


def _is_supported(layer: nn.Module) -> bool:
    if type(layer) not in LAYERS:
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.MaxPool2d):
        return layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices
    return True


def cannot_overflow(
    network: nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor
) -> list[bool]:
    """Answer for each run whether all numbers in the network are surely finite.

    A convolution's outputs are at most the largest input times the sum of the absolute weights of
    a unit, plus its bias. ReLU and max-pooling do not enlarge that bound.

    Args:
        network: for which `supports` holds.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, channel, row, column)``.
    """
    bound = inputs.detach().flatten(1).abs().amax(dim=1)
    for name, layer in network.named_children():
        if not isinstance(layer, nn.Conv2d):
            continue
        totals = tensors[f"{name}.weight"].detach().abs().flatten(2).sum(dim=2)
        bounds = totals * bound[:, None]
        if layer.bias is not None:
            bounds += tensors[f"{name}.bias"].detach().abs()
        bound = bounds.amax(dim=1)
    margin = 2  # for rounding
    answers: list[bool] = (margin * bound).isfinite().tolist()
    return answers


def forward(network: nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Compute the outputs of one run, in torch's default layout.

    Args:
        network: for which `supports` holds.
        tensors: parameters by name, without a dim of runs; `cannot_overflow` holds for them.
        inputs: shape ``(n, channel, row, column)``.

    Returns:
        Shape ``(n, channel, row, column)``.
    """
    values = inputs.to_mkldnn()
    for name, layer in _pool_early(network):
        if isinstance(layer, nn.Conv2d):
            values = nn.functional.conv2d(
                values,
                tensors[f"{name}.weight"],
                tensors.get(f"{name}.bias"),
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
            )
        else:
            values = layer(values)
    return values.to_dense()


def _pool_early(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers by name, max-pooling before the ReLU that precedes it.

    Outputs and gradients are the same to the bit, and ReLU has fewer numbers to process.
    """
    relus: list[tuple[str, nn.Module]] = []
    for name, layer in network.named_children():
        if isinstance(layer, nn.ReLU):
            relus.append((name, layer))
            continue
        if isinstance(layer, nn.Conv2d):
            yield from relus
            relus = []
        yield name, layer
    yield from relus
