"""Variables of the datasets that describe spectra: names, meanings and values by block."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plasticity.config import registry
from plasticity.config.models import Curvature, Spectra
from plasticity.curvature.spectrum import (
    Spectrum,
    density,
    meanings,
    rank_names,
    summary,
)
from plasticity.rng import generator
from plasticity.storage.netcdf import RUN, Variable

_DATA = (*RUN, "evaluation_point", "block")


def table(curvature: Curvature) -> dict[str, Variable]:
    """Describe the variables of all operators, by name."""
    variables: dict[str, Variable] = {}
    for operator, how in curvature.operators.items():
        numbers = _number_variables(operator, curvature)
        variables |= numbers
        variables |= _eigenvalue_variables(operator, how, curvature.top)
        if may_be_estimated(operator, how):
            variables |= _error_variables(operator, numbers)
    return variables


def _number_variables(operator: str, curvature: Curvature) -> dict[str, Variable]:
    """Describe the numbers of an operator's spectra."""
    suffix = _suffix(operator)
    numbers = meanings(curvature.levels) | {
        "rank_limit": "upper bound on the number of nonzero eigenvalues",
        "gradient_overlap": "share of the square of the next task's gradient in the span of the "
        f"top {curvature.top} eigenvectors",
    }
    return {
        f"{operator}_{name}": Variable(_DATA, meaning + suffix) for name, meaning in numbers.items()
    }


def _eigenvalue_variables(operator: str, how: Spectra, top: int) -> dict[str, Variable]:
    """Describe the eigenvalues of an operator."""
    meaning = "eigenvalues, descending"
    if may_be_estimated(operator, how):
        meaning += f": all, or of an estimate the {top} largest, then as many smallest"
    meaning += _suffix(operator)
    return {f"{operator}_eigenvalue": Variable((*_DATA, "rank"), meaning, "float64")}


def _error_variables(operator: str, numbers: Mapping[str, Variable]) -> dict[str, Variable]:
    """Describe what estimates have in addition: errors, and a density."""
    suffix = _suffix(operator)
    variables = {
        f"{name}_margin": Variable(_DATA, f"95 % margin of error: {number.meaning}")
        for name, number in numbers.items()
        if name != f"{operator}_rank_limit"
    }
    variables[f"{operator}_eigenvalue_error"] = Variable(
        (*_DATA, "rank"), f"bound on the error of each eigenvalue (its residual){suffix}"
    )
    variables[f"{operator}_density"] = Variable(
        (*_DATA, "grid"), f"share of the eigenvalues per unit of asinh, smoothed{suffix}"
    )
    variables[f"{operator}_density_error"] = Variable(
        _DATA, f"bound (95 %) on the largest error of the density{suffix}"
    )
    return variables


def _suffix(operator: str) -> str:
    """Name the operator at the end of a meaning."""
    return f", of the {registry.constant('operators', operator, 'MEANING')}"


@functools.lru_cache(maxsize=64)
def probes(seed: int, task: int, block: str, vectors: int, d: int) -> Tensor:
    """Draw normal probes, shape ``(vectors, d)``.

    All arms, evaluation points and operators have the same draws, which reduces the variance of
    their differences.
    """
    return torch.from_numpy(generator(seed, f"probes {block}", task).normal(size=(vectors, d)))


@functools.cache
def always_exact(operator: str) -> bool:
    """Tell whether an operator's spectra are never estimated."""
    return bool(registry.constant("operators", operator, "EXACT"))


def may_be_estimated(operator: str, how: Spectra) -> bool:
    """Tell whether numbers of an operator may have errors."""
    return how.estimate and not always_exact(operator)


def block_variables(
    spectra: Mapping[str, Spectrum],
    blocks: Iterable[str],
    levels: Sequence[float],
    estimated: bool,
) -> dict[str, Tensor]:
    """Stack the variables of some spectra along a block dimension.

    Args:
        spectra: by block, leading shape ``(*run,)``.
        blocks: all blocks, in the order of the result.
        levels: of the effective ranks.
        estimated: whether the operator may be estimated, so that it has a density.

    Returns:
        By name, shapes ``(*run, block)``, ``(*run, block, rank)`` and ``(*run, block, grid)``; NaN
        for a block without a spectrum.
    """
    by_block = {
        block: _spectrum_variables(spectrum, levels, estimated)
        for block, spectrum in spectra.items()
    }
    ranks = max(variables["eigenvalue"].shape[-1] for variables in by_block.values())
    for variables in by_block.values():
        for name in ("eigenvalue", "eigenvalue_error"):
            variables[name] = _pad(variables[name], ranks)

    first = next(iter(by_block.values()))
    missing = {name: torch.full_like(values, torch.nan) for name, values in first.items()}
    block_dim = first["gradient_overlap"].ndim
    stacked = {}
    for name in first:
        values_by_block = [by_block.get(block, missing)[name] for block in blocks]
        stacked[name] = torch.stack(values_by_block, dim=block_dim)
    return stacked


def _spectrum_variables(
    spectrum: Spectrum, levels: Sequence[float], estimated: bool
) -> dict[str, Tensor]:
    """Compute the variables of one spectrum, leading shape ``(*run,)``."""
    numbers, margins = summary(spectrum, levels)
    largest = spectrum.size if spectrum.rank_limit is None else spectrum.rank_limit
    limit = torch.full_like(numbers["trace"], largest)
    for name in rank_names(levels):
        numbers[name] = known_rank(numbers[name], margins[name], limit)
    numbers["rank_limit"] = limit
    overlap = cast(Tensor, spectrum.overlap)
    numbers["gradient_overlap"] = overlap
    margins["gradient_overlap"] = _or_zeros(spectrum.overlap_margin, overlap)
    variables = numbers | {f"{name}_margin": margin for name, margin in margins.items()}
    eigenvalues = spectrum.values if spectrum.ends is None else spectrum.ends
    variables["eigenvalue"] = eigenvalues
    variables["eigenvalue_error"] = _or_zeros(spectrum.residuals, eigenvalues)
    if estimated:
        variables["density"], variables["density_error"] = density(spectrum)
    return variables


def known_rank(rank: Tensor, margin: Tensor, limit: Tensor) -> Tensor:
    """Replace an estimate by NaN if it is not known to its own size, or is impossible.

    Args:
        rank: an estimate of a rank.
        margin: of error; 0 if the rank is exact.
        limit: upper bound on the rank.
    """
    return rank.where((margin <= rank) & (rank <= limit), torch.nan)


def _or_zeros(errors: Tensor | None, values: Tensor) -> Tensor:
    """Return errors of values; zeros if the values are exact."""
    return torch.zeros_like(values) if errors is None else errors


def _pad(values: Tensor, width: int) -> Tensor:
    """Append NaN to the last dimension."""
    return nn.functional.pad(values, (0, width - values.shape[-1]), value=torch.nan)
