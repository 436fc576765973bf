"""Measures of hidden units, features and weights.

A block has NaN where a measure is not defined: the output layer has no hidden units, and several
layers have no common feature matrix.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plasticity.curvature import spectrum
from plasticity.curvature.blocks import layer_name
from plasticity.models.ensemble import Parameters, Watch, forward
from plasticity.storage.netcdf import RUN, Variable

DORMANT = 0.025  # Sokar et al. 2023 (ReDo), arXiv 2302.12902
# A slope at most this large is flat. That of tanh is so where its magnitude is at least 0.99.
FLAT = 1 - 0.99**2
SATURATED = 0.95  # share of the data on which a saturated unit is flat
CLONED = 0.95  # cosine similarity of the activations of cloned units

_DATA, _BLOCK = (*RUN, "evaluation_point", "block"), (*RUN, "block")
TABLE = {
    "weight_norm": Variable(_BLOCK, "Euclidean norm of the parameters at the task's start"),
    "isometry_deviation": Variable(
        _BLOCK,
        "sum of (σ² − 1)² over the singular values σ of the weights of linear layers and "
        "convolutions at the task's start",
    ),
    "feature_rank": Variable(
        _DATA,
        "effective rank (0.99) of the layer's activations on the task's data, a row per sample and "
        "place or token",
    ),
    "flattened_feature_rank": Variable(
        _DATA,
        "effective rank (0.99) of the layer's activations on the task's data, a row per sample",
    ),
    "dead_fraction": Variable(_DATA, "share of units that are zero on all of the task's data"),
    "dormant_fraction": Variable(_DATA, "share of units with a ReDo score of at most 0.025"),
    "cloned_fraction": Variable(
        _DATA, "share of units whose activations have a cosine above 0.95 with an earlier unit's"
    ),
    "saturated_fraction": Variable(
        _DATA, "share of units whose slope is at most 0.0199 on 95 % of the task's data"
    ),
}


@torch.no_grad()
def hidden_units(network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Watch:
    """Compute the activations of each hidden layer, and their slopes.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, …)``.

    Returns:
        Activations and slopes by the name of the layer before the activation, shapes
        ``(run, row, unit)``. A row is a sample, or a position of a sample.
    """
    watch = Watch(with_slopes=True)
    forward(network, tensors, inputs, watch)
    return watch


def unit_measures(
    watch: Watch, samples: int, blocks: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Compute the measures of each block's units.

    Over several layers, the fractions are of all hidden units; there is no feature rank.

    Args:
        watch: activations and slopes by layer, shapes ``(run, row, unit)``.
        samples: number of samples.
        blocks: layers of each block.

    Returns:
        By name, shapes ``(run, block)``; NaN for a block without hidden units. The flattened
        feature rank is NaN for layers without places and tokens, too.
    """
    magnitudes = {layer: values.abs().mean(dim=1) for layer, values in watch.hidden.items()}
    units = {
        "dead_fraction": {layer: dead(values) for layer, values in magnitudes.items()},
        "dormant_fraction": {layer: dormant(values) for layer, values in magnitudes.items()},
        "cloned_fraction": {layer: cloned(values) for layer, values in watch.hidden.items()},
        "saturated_fraction": {layer: saturated(values) for layer, values in watch.slopes.items()},
    }
    ranks = {layer: feature_rank(values) for layer, values in watch.hidden.items()}
    flattened_ranks = {
        layer: flattened_feature_rank(values, samples)
        for layer, values in watch.hidden.items()
        if values.shape[1] > samples  # else it would be the feature rank again
    }
    missing = torch.full_like(next(iter(ranks.values())), torch.nan)
    measures = {
        "feature_rank": [ranks.get(block, missing) for block in blocks],
        "flattened_feature_rank": [flattened_ranks.get(block, missing) for block in blocks],
    }
    is_finite = {layer: values.isfinite().all(dim=1) for layer, values in magnitudes.items()}
    for name, counted in units.items():
        measures[name] = [
            fraction_of_units(layers, counted, is_finite).to(missing) for layers in blocks.values()
        ]
    return {name: torch.stack(values, dim=1) for name, values in measures.items()}


def fraction_of_units(
    layers: Sequence[str], counted: Mapping[str, Tensor], is_finite: Mapping[str, Tensor]
) -> Tensor:
    """Compute the share of units that are counted, over some layers.

    Args:
        layers: names of layers; those without hidden units do not count.
        counted: booleans by layer, shapes ``(run, unit)``.
        is_finite: whether a run's activations are finite, by layer, shapes ``(run,)``.

    Returns:
        Shape ``(run,)``, float64; NaN for a run with activations that are not finite, or if there
        are no hidden units.
    """
    hidden = [layer for layer in counted if layer in layers]
    if not hidden:
        of_runs = next(iter(is_finite.values()))
        return torch.full_like(of_runs, torch.nan, dtype=torch.float64)
    shares = torch.cat([counted[layer] for layer in hidden], dim=1).double().mean(dim=1)
    are_finite = torch.stack([is_finite[layer] for layer in hidden]).all(dim=0)
    return shares.where(are_finite, torch.nan)


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


def saturated(slopes: Tensor) -> Tensor:
    """Find the units that are flat on almost all data, so that no gradient passes them.

    A unit is flat where the magnitude of its activation's derivative is at most 1 − 0.99². For tanh
    this is a magnitude of at least 0.99, the usual definition. For relu and leaky_relu, whose slope
    is then 0.01, it is an input below 0.

    Args:
        slopes: derivatives of a layer's activations by their inputs, shape ``(run, row, unit)``.

    Returns:
        Booleans of shape ``(run, unit)``.
    """
    shares = (slopes.abs() <= FLAT).double().mean(dim=1)
    return shares >= SATURATED


def cloned(activations: Tensor) -> Tensor:
    """Find the units whose activations are nearly proportional to those of an earlier unit.

    Cloned units get proportional gradients, so they stay clones (Joudaki et al. 2025,
    arXiv 2510.00304). The bound is that of the authors' code. A unit that is zero on all data is
    no clone.

    Args:
        activations: shape ``(run, row, unit)``.

    Returns:
        Booleans of shape ``(run, unit)``.
    """
    directions = nn.functional.normalize(activations, dim=1)
    cosines = directions.mT @ directions
    is_earlier = torch.ones_like(cosines[0], dtype=torch.bool).triu(diagonal=1)
    return ((cosines > CLONED) & is_earlier).any(dim=1)


def flattened_feature_rank(activations: Tensor, samples: int) -> Tensor:
    """Compute the feature rank with a row per sample, as in the code of L2 Init.

    A sample's row has all units at all places of an image, or of all tokens.

    Args:
        activations: shape ``(run, row, unit)``, a sample's rows next to each other.
        samples: number of samples.

    Returns:
        Shape ``(run,)``.
    """
    return feature_rank(activations.unflatten(1, (samples, -1)).flatten(2))


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


def isometry_deviation(
    network: nn.Module, parameters: Parameters, blocks: Mapping[str, Sequence[str]]
) -> Tensor:
    """Sum the deviation from isometry of each block's linear layers and convolutions.

    For a weight W it is ‖WWᵀ − I‖²_F, or ‖WᵀW − I‖²_F if W has fewer columns than rows: the sum of
    (σ² − 1)² over its singular values σ. A kernel is a matrix with a row per output channel.

    Source: DfI of FIRE, arXiv 2602.08040. For a weight that is not square we take the smaller of
    the two matrices, because the larger one has a smaller rank than I, so its deviation is never
    zero.

    Args:
        network: a plain module.
        parameters: of all runs.
        blocks: layers of each block.

    Returns:
        Shape ``(run, block)``; NaN for a block without such a layer, and where the weights are not
        finite.
    """
    missing = torch.full_like(parameters.flat[:, 0].detach(), torch.nan)
    deviations = []
    for layers in blocks.values():
        of_block = []
        for layer in layers:
            if isinstance(network.get_submodule(layer), (nn.Linear, nn.Conv2d)):
                weights = parameters.tensors[f"{layer}.weight"].detach()
                # One run after another, because the products may be larger than the weights.
                of_block.append(torch.stack([_deviation(weight) for weight in weights]))
        total = torch.stack(of_block).sum(dim=0) if of_block else missing
        deviations.append(total.where(total.isfinite(), torch.nan))
    return torch.stack(deviations, dim=1)


def _deviation(weight: Tensor) -> Tensor:
    """Compute the deviation from isometry of one weight, shape ``(output, …)``."""
    matrix = weight.flatten(1)
    outputs, inputs = matrix.shape
    product = matrix @ matrix.mT if outputs <= inputs else matrix.mT @ matrix
    return (product - torch.eye(len(product)).to(product)).square().sum()


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
