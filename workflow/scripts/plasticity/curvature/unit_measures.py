"""Measures of hidden units, features and weights.

A block has NaN where a measure is not defined: the output layer has no hidden units, and several
layers have no common feature matrix.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from plasticity.curvature import spectrum
from plasticity.curvature.blocks import layer_name
from plasticity.models.ensemble import Parameters, Watch, forward
from plasticity.storage.netcdf import RUN, Variable

DORMANT = 0.025  # Sokar et al. 2023 (ReDo), arXiv 2302.12902

_DATA, _BLOCK = (*RUN, "evaluation_point", "block"), (*RUN, "block")
TABLE = {
    "weight_norm": Variable(_BLOCK, "Euclidean norm of the parameters at the task's start"),
    "feature_rank": Variable(
        _DATA, "effective rank (0.99) of the layer's activations on the task's data"
    ),
    "dead_fraction": Variable(_DATA, "share of units that are zero on all of the task's data"),
    "dormant_fraction": Variable(_DATA, "share of units with a ReDo score of at most 0.025"),
}


@torch.no_grad()
def hidden_activations(
    network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor
) -> dict[str, Tensor]:
    """Compute the activations of each hidden layer, one column per unit.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, …)``.

    Returns:
        By the name of the layer before the activation, shapes ``(run, row, unit)``. A row is a
        sample, or a position of a sample.
    """
    watch = Watch()
    forward(network, tensors, inputs, watch)
    return watch.hidden


def unit_measures(
    activations: dict[str, Tensor], blocks: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Compute feature rank, dead fraction and dormant fraction of each block.

    Over several layers, the fractions are of all hidden units; there is no feature rank.

    Args:
        activations: by layer, shapes ``(run, row, unit)``.
        blocks: layers of each block.

    Returns:
        By name, shapes ``(run, block)``; NaN for a block without hidden units.
    """
    ranks = {layer: feature_rank(values) for layer, values in activations.items()}
    magnitudes = {layer: values.abs().mean(dim=1) for layer, values in activations.items()}
    missing = torch.full_like(next(iter(ranks.values())), torch.nan)
    block_ranks = [ranks.get(block, missing) for block in blocks]
    dead_fractions, dormant_fractions = [], []
    for layers in blocks.values():
        in_block = [values for layer, values in magnitudes.items() if layer in layers]
        if in_block:
            dead_fractions.append(_fraction(dead, in_block, missing.dtype))
            dormant_fractions.append(_fraction(dormant, in_block, missing.dtype))
        else:
            dead_fractions.append(missing)
            dormant_fractions.append(missing)
    return {
        "feature_rank": torch.stack(block_ranks, dim=1),
        "dead_fraction": torch.stack(dead_fractions, dim=1),
        "dormant_fraction": torch.stack(dormant_fractions, dim=1),
    }


def _fraction(
    is_counted: Callable[[Tensor], Tensor], magnitudes: Sequence[Tensor], dtype: torch.dtype
) -> Tensor:
    """Compute the share of units that are counted, over some layers.

    Args:
        is_counted: maps the mean magnitudes of one layer's units to booleans.
        magnitudes: by layer, shapes ``(run, unit)``.
        dtype: of the result.

    Returns:
        Shape ``(run,)``; NaN for a run with magnitudes that are not finite.
    """
    counted = torch.cat([is_counted(values) for values in magnitudes], dim=1)
    is_finite = torch.cat(list(magnitudes), dim=1).isfinite().all(dim=1)
    return counted.to(dtype).mean(dim=1).where(is_finite, torch.nan)


def dead(magnitudes: Tensor) -> Tensor:
    """Find the units that are zero on every input.

    Args:
        magnitudes: mean magnitudes of a layer's units, shape ``(run, unit)``.

    Returns:
        Booleans of the same shape.
    """
    return magnitudes == 0


def dormant(magnitudes: Tensor) -> Tensor:
    """Find the units with at most 0.025 of their layer's mean magnitude.

    Source: ReDo, arXiv 2302.12902, equation 1.

    Args:
        magnitudes: mean magnitudes of a layer's units, shape ``(run, unit)``.

    Returns:
        Booleans of the same shape; true for all units of a silent layer.
    """
    return magnitudes <= DORMANT * magnitudes.mean(dim=1, keepdim=True)


def feature_rank(activations: Tensor) -> Tensor:
    """Compute the effective rank of each run's feature matrix, uncentred.

    The singular values come from the smaller of the two Gram matrices.

    Args:
        activations: shape ``(run, row, unit)``.

    Returns:
        Shape ``(run,)``.
    """
    rows, units = activations.shape[-2:]
    gram = activations.mT @ activations if units <= rows else activations @ activations.mT
    return spectrum.effective_rank(spectrum.eigenvalues(gram).sqrt())


def weight_norm(parameters: Parameters, blocks: Mapping[str, Sequence[str]]) -> Tensor:
    """Compute the Euclidean norm of each block's parameters, shape ``(run, block)``."""
    squares = {
        name: tensor.detach().flatten(1).square().sum(dim=1)
        for name, tensor in parameters.tensors.items()
    }
    norms = []
    for layers in blocks.values():
        total = torch.zeros_like(next(iter(squares.values())))
        for name, square in squares.items():
            if layer_name(name) in layers:
                total = total + square
        norms.append(total.sqrt())
    return torch.stack(norms, dim=1)
