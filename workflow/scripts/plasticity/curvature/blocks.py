"""Layers and blocks of a network: the sets of parameters on which curvature is computed."""

from torch import nn

from plasticity.models import normalization

ALL, LAST_TWO = "all", "last_two"


def layer_parameters(network: nn.Module) -> dict[str, list[str]]:
    """List the trainable parameters of each layer, by layer name and in the network's order.

    A parameter that several layers share belongs to the first of them.
    """
    layers: dict[str, list[str]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(layer_name(name), []).append(name)
    return layers


def layer_name(parameter: str) -> str:
    """Return the layer of a parameter: ``hidden_1.weight`` → ``hidden_1``."""
    return parameter.rpartition(".")[0]


def blocks_of(network: nn.Module) -> dict[str, list[str]]:
    """List the layers of each block: every layer alone, the last two layers, all layers.

    Normalization layers do not count as one of the last two. A normalization layer between the
    last two belongs to their block.
    """
    layers = list(layer_parameters(network))
    weight_layers = [
        layer
        for layer in layers
        if not isinstance(network.get_submodule(layer), normalization.NORM_CLASSES)
    ]
    last_two = layers
    if len(weight_layers) > 1:
        last_two = layers[layers.index(weight_layers[-2]) :]
    blocks = {layer: [layer] for layer in layers}
    return blocks | {LAST_TWO: last_two, ALL: layers}
