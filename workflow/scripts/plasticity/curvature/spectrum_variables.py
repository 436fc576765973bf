"""What the datasets hold of operators' spectra: names, and numbers block by block."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plasticity.config import registry
from plasticity.config.models import Curvature, Spectra
from plasticity.curvature.spectrum import Spectrum, density, meanings, summary
from plasticity.rng import generator
from plasticity.storage.netcdf import RUN, Variable

_DATA = (*RUN, "evaluation_point", "block")


def table(curvature: Curvature) -> dict[str, Variable]:
    """Each operator's numbers, all of its eigenvalues, and where they may be estimates, their errors and a density."""
    found: dict[str, Variable] = {}
    numbers = meanings(curvature.levels) | {
        "gradient_overlap": f"share of the square of the coming task's gradient in the span of the top {curvature.top} eigenvectors"
    }
    for operator, how in curvature.operators.items():
        of = f", of the {registry.constant('operators', operator, 'MEANING')}"
        estimated = may_be_estimated(operator, how)
        ends = f"eigenvalues, descending: all, or of an estimate the {curvature.top} largest, then as many smallest"
        found |= {
            f"{operator}_{name}": Variable(_DATA, what + of) for name, what in numbers.items()
        }
        values = ends if estimated else "eigenvalues, descending"
        found[f"{operator}_eigenvalue"] = Variable((*_DATA, "rank"), values + of, "float64")
        if estimated:
            found |= {
                f"{operator}_{name}_standard_error": Variable(_DATA, f"standard error: {what}{of}")
                for name, what in numbers.items()
            }
            found |= {
                f"{operator}_eigenvalue_error": Variable(
                    (*_DATA, "rank"), f"bound on the error of each eigenvalue (its residual){of}"
                ),
                f"{operator}_density": Variable(
                    (*_DATA, "grid"), f"share of the eigenvalues per unit of asinh, smoothed{of}"
                ),
                f"{operator}_density_error": Variable(
                    _DATA, f"bound (95 %) on the largest error of the density{of}"
                ),
            }
    return found


@functools.lru_cache(maxsize=64)
def probes(seed: int, task: int, block: str, vectors: int, d: int) -> Tensor:
    """Normal draws, shape ``(vectors, d)``: the same for every arm, evaluation point and operator, whose differences they then blur less."""
    return torch.from_numpy(generator(seed, f"probes {block}", task).normal(size=(vectors, d)))


@functools.cache
def always_exact(operator: str) -> bool:
    """Whether an operator's spectra are never estimated."""
    return bool(registry.constant("operators", operator, "EXACT"))


def may_be_estimated(operator: str, how: Spectra) -> bool:
    """Whether a number of an operator may have an error."""
    return how.estimate and not always_exact(operator)


def side_by_side(
    taken: Mapping[str, Spectrum], blocks: Iterable[str], levels: Sequence[float], estimated: bool
) -> dict[str, Tensor]:
    """Everything that is kept of spectra, by name, shapes ``(…, block)`` and more; NaN for a block that was not taken."""
    every = list(taken.values())
    exact = torch.zeros_like(cast(Tensor, every[0].overlap))
    if all(
        one.weights is None and one.values.shape == every[0].values.shape for one in every
    ):  # at once, which is faster
        numbers, errors = summary(
            Spectrum(torch.stack([spectrum.values for spectrum in every], dim=-2), 0), levels
        )
    else:
        summaries = [summary(spectrum, levels) for spectrum in every]
        numbers, errors = (
            {name: torch.stack([one[name] for one in part], dim=-1) for name in part[0]}
            for part in zip(*summaries, strict=True)
        )
    numbers["gradient_overlap"] = torch.stack(
        [cast(Tensor, spectrum.overlap) for spectrum in every], dim=-1
    )
    errors["gradient_overlap"] = torch.stack(
        [exact if one.overlap_error is None else one.overlap_error for one in every], dim=-1
    )
    found = numbers | {f"{name}_standard_error": error for name, error in errors.items()}
    ends = [one.values if one.ends is None else one.ends for one in every]
    bounds = [
        torch.zeros_like(end) if one.residuals is None else one.residuals
        for one, end in zip(every, ends, strict=True)
    ]
    width = max(end.shape[-1] for end in ends)
    rows = {"eigenvalue": ends, "eigenvalue_error": bounds}
    if estimated:
        densities, limits = zip(*(density(spectrum) for spectrum in every), strict=True)
        rows["density"], found["density_error"] = list(densities), torch.stack(limits, dim=-1)
    for name, of_blocks in rows.items():
        wide = [
            nn.functional.pad(row, (0, max(width - row.shape[-1], 0)), value=torch.nan)
            for row in of_blocks
        ]
        found[name] = torch.stack(wide if name != "density" else of_blocks, dim=-2)
    places = {block: place for place, block in enumerate(taken)}
    return {
        name: _at_places(number, [places.get(block) for block in blocks], exact.ndim)
        for name, number in found.items()
    }


def _at_places(values: Tensor, places: Sequence[int | None], dim: int) -> Tensor:
    """Slices along a dim, in the order of their places; NaN where there is none."""
    missing = torch.full_like(values.select(dim, 0), torch.nan)
    return torch.stack(
        [missing if place is None else values.select(dim, place) for place in places], dim=dim
    )
