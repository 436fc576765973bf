"""Measures of the samples' gradients: how strong they are, how much they agree, what they reach."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plasticity.curvature.batch_loss import BatchLoss
from plasticity.curvature.gram import GramMatrices, loss_gradients
from plasticity.curvature.unit_measures import fraction_of_units
from plasticity.models.ensemble import as_units, record_activations
from plasticity.storage.netcdf import RUN, Variable

FROZEN = 1e-4  # share of the layer's mean gradient that is almost none
FROZEN_SHARE = 0.99  # of the data on which almost no gradient reaches a frozen unit

_DATA = (*RUN, "evaluation_point", "block")
TABLE = {
    "frozen_fraction": Variable(
        _DATA,
        "share of units whose gradient is at most 1e-4 of the layer's mean on 99 % of the task's "
        "data",
    ),
    "gradient_strength": Variable(_DATA, "squared norm of the mean gradient on the task's data"),
    "gradient_reliability": Variable(
        _DATA, "squared norm of the mean gradient over the mean squared norm of samples' gradients"
    ),
    "optimization_readiness": Variable(_DATA, "gradient strength times gradient reliability"),
}


def gradient_measures(batch: BatchLoss, blocks: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Compute the measures of each block's gradients.

    Args:
        batch: network, parameters and data.
        blocks: layers of each block.

    Returns:
        By name, shapes ``(*run, block)``; the fraction is NaN for a block without hidden units.
    """
    slopes: dict[str, Tensor] = {}
    with record_activations(batch.network, {}, slopes) as hidden:
        grams = GramMatrices(loss_gradients, batch)
    mean_squares = {layer: grams.diagonal([layer]).sum(dim=-1) for layer in batch.layers}

    names = batch.parameters_in(batch.layers)
    mean_loss = batch.sample_losses(grams.outputs).mean(dim=-1).sum()
    derivatives = torch.autograd.grad(
        mean_loss,
        [*hidden.values(), *(batch.tensors[name] for name in names)],
        materialize_grads=True,
    )
    of_activations = dict(zip(hidden, derivatives[: len(hidden)], strict=True))
    gradient = dict(zip(names, derivatives[len(hidden) :], strict=True))
    squares = {
        name: of_parameter.flatten(batch.sample_dim).square().sum(dim=-1)
        for name, of_parameter in gradient.items()
    }
    strengths, means = [], []
    for layers in blocks.values():
        of_block = [squares[name] for name in batch.parameters_in(layers)]
        strengths.append(torch.stack(of_block).sum(dim=0))
        means.append(torch.stack([mean_squares[layer] for layer in layers]).sum(dim=0))
    strength = torch.stack(strengths, dim=-1)
    mean_square = torch.stack(means, dim=-1)
    unit_gradients = {layer: slopes[layer].detach() * of_activations[layer] for layer in hidden}
    return {
        "frozen_fraction": _frozen_fraction(unit_gradients, batch, blocks).to(strength),
        "gradient_strength": strength,
        "gradient_reliability": gradient_reliability(strength, mean_square),
        "optimization_readiness": optimization_readiness(strength, mean_square),
    }


def _frozen_fraction(
    gradients: Mapping[str, Tensor], batch: BatchLoss, blocks: Mapping[str, Sequence[str]]
) -> Tensor:
    """Compute the share of frozen units of each block.

    Args:
        gradients: derivatives of the loss by the units' inputs, by layer, shapes ``(*run, n, …)``.
        batch: on which they were computed.
        blocks: layers of each block.

    Returns:
        Shape ``(*run, block)``.
    """
    is_frozen, is_finite = {}, {}
    for layer, values in gradients.items():
        rows = as_units(values if batch.run_shape else values[None])
        is_frozen[layer] = frozen(rows)
        is_finite[layer] = rows.isfinite().all(dim=(1, 2))
    fractions = [fraction_of_units(layers, is_frozen, is_finite) for layers in blocks.values()]
    stacked = torch.stack(fractions, dim=-1)
    return stacked if batch.run_shape else stacked[0]


def frozen(gradients: Tensor) -> Tensor:
    """Find the units that almost no gradient reaches.

    On at least 99 % of the rows, the magnitude of a frozen unit's gradient is at most 1e-4 of the
    layer's mean magnitude. Its incoming weights hardly change. Source: "frozen units" of Joudaki
    et al. 2025, arXiv 2510.00304. Both numbers are those of the authors' code, which divides by the
    unit's mean activation. We divide by the layer's mean gradient, so that the scale of the loss
    does not matter.

    Args:
        gradients: derivatives of each sample's loss by the inputs of a layer's activations: the
            slope times the derivative by the activation. Shape ``(run, row, unit)``.

    Returns:
        Booleans of shape ``(run, unit)``; true for all units if every gradient is zero.
    """
    magnitudes = gradients.abs()
    bound = FROZEN * magnitudes.mean(dim=(1, 2), keepdim=True)
    shares = (magnitudes <= bound).double().mean(dim=1)
    return shares >= FROZEN_SHARE


def gradient_reliability(strength: Tensor, mean_square: Tensor) -> Tensor:
    """Divide the squared norm of the mean gradient by the mean squared norm: ‖ḡ‖² / mean‖gᵢ‖².

    It is 1 if all samples have the same gradient, and 1/n for n orthogonal gradients of equal norm.

    Source: "gradient reliability" of Wang et al. 2026, arXiv 2605.09044. The formula is our
    reading (see `optimization_readiness`).

    Args:
        strength: ‖ḡ‖², any shape.
        mean_square: mean ‖gᵢ‖², same shape.

    Returns:
        In [0, 1], same shape; NaN where all gradients are zero.
    """
    return (strength / mean_square).clamp(max=1)


def optimization_readiness(strength: Tensor, mean_square: Tensor) -> Tensor:
    """Multiply gradient strength and gradient reliability: ‖ḡ‖⁴ / mean‖gᵢ‖².

    Source: "optimization readiness" of Wang et al. 2026, arXiv 2605.09044. Only the abstract was
    available to us. It combines gradient strength and gradient reliability, as a lower bound on the
    gain of one step. This formula is our reading of it. A step −η gᵢ along the gradient of a random
    sample lowers an L-smooth mean loss, in expectation, by at least

        η ‖ḡ‖² − L η² mean‖gᵢ‖² / 2.

    The best step size, η = ‖ḡ‖² / (L mean‖gᵢ‖²), gives the bound ‖ḡ‖⁴ / (2 L mean‖gᵢ‖²), which is
    the readiness over 2 L.

    Args:
        strength: ‖ḡ‖², any shape.
        mean_square: mean ‖gᵢ‖², same shape.

    Returns:
        Same shape; 0 where the mean gradient is zero.
    """
    readiness = strength * gradient_reliability(strength, mean_square)
    return readiness.where(strength > 0, strength)
