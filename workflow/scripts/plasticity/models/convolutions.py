"""Convolutions, ReLUs and max-pooling of one run on a CPU, in the memory layout of oneDNN.

oneDNN computes convolutions on blocks of 16 channels. Tensors in torch's own layout are reordered
before and after each call, and torch's max-pooling reads them number by number. Here a run's images
enter oneDNN's layout once, pass through all layers, and leave it at the end.

oneDNN's ReLU and max-pooling drop NaN, which would hide that a run has diverged. So only runs
without a chance of overflow may be computed here, see `cannot_overflow`.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ReLU, nn.MaxPool2d)


def supports(network: nn.Module, inputs: Tensor) -> bool:
    """Answer whether `forward` computes this network on these inputs.

    It does so for a sequence of plain convolutions, ReLUs and max-pooling in float32. oneDNN has
    fast functions for x86 processors only.
    """
    return (
        type(network) is nn.Sequential
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
    network: nn.Sequential,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    masks: Mapping[str, Tensor],
) -> list[bool]:
    """Answer for each run whether all numbers in the network are surely finite.

    A convolution's outputs are at most the largest input times the sum of the absolute weights of
    a unit, plus its bias. ReLU and max-pooling do not enlarge that bound.

    Args:
        network: for which `supports` holds.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, channel, row, column)``.
        masks: multiplied with the activations, by layer, shapes ``(run, n, …)``.
    """
    bound = _largest(inputs)
    for name, layer in network.named_children():
        if not isinstance(layer, nn.Conv2d):
            continue
        totals = tensors[f"{name}.weight"].detach().abs().flatten(2).sum(2)
        bounds = totals * bound[:, None]
        if layer.bias is not None:
            bounds += tensors[f"{name}.bias"].detach().abs()
        bound = bounds.amax(1)
        if name in masks:
            bound *= _largest(masks[name])
    margin = 2  # for rounding
    return (margin * bound).isfinite().tolist()


def _largest(values: Tensor) -> Tensor:
    """Compute the largest absolute value of each run, shape ``(run,)``."""
    return values.detach().flatten(1).abs().amax(dim=1)


def forward(
    network: nn.Sequential,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    masks: Mapping[str, Tensor],
    *,
    records: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the outputs and hidden activations of one run.

    Args:
        network: for which `supports` holds.
        tensors: parameters by name, without a dim of runs.
        inputs: shape ``(n, channel, row, column)``.
        masks: multiplied with the activations, by layer, shapes ``(n, …)``.
        records: whether activations are masked and recorded.

    Returns:
        Outputs of shape ``(n, channel, row, column)``, and the masked activations by layer.
    """
    hidden: dict[str, Tensor] = {}
    values = inputs.to_mkldnn()
    last_layer = ""
    layers = network.named_children() if records else _with_early_pooling(network)
    for name, layer in layers:
        if isinstance(layer, nn.Conv2d):
            last_layer = name
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
        if isinstance(layer, nn.ReLU) and records:
            activations = values.to_dense()
            mask = masks.get(last_layer)
            hidden[last_layer] = activations if mask is None else activations * mask
            values = hidden[last_layer].to_mkldnn()
    return values.to_dense(), hidden


def _with_early_pooling(network: nn.Sequential) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers by name, max-pooling before the ReLU that precedes it.

    Outputs and gradients are the same to the bit, and ReLU has fewer numbers to process.
    """
    waiting: list[tuple[str, nn.Module]] = []
    for name, layer in network.named_children():
        if isinstance(layer, nn.ReLU):
            waiting.append((name, layer))
            continue
        if not isinstance(layer, nn.MaxPool2d):
            yield from waiting
            waiting = []
        yield name, layer
    yield from waiting
