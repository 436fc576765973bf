"""Numbers that sum up a spectrum. Definitions are exact: several quantities go by the same name in public code.

Every number is a function of values and of how many eigenvalues each stands for: one each where all eigenvalues are known, the weights of a
quadrature where they are estimated. So an estimated rank is never the rank of a few Ritz values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

EPSILON = 1e-3
NUMBERS = {
    "stable_rank": "sum of the eigenvalues' magnitudes over the largest",
    "entropy_rank": "exponential of the entropy of the eigenvalues' magnitudes as shares",
    "epsilon_rank": "eigenvalues whose magnitude is above 1e-3 of the largest",
    "absolute_epsilon_rank": "eigenvalues whose magnitude is above 1e-3",
    "top_eigenvalue": "largest eigenvalue",
    "trace": "sum of the eigenvalues",
    "negative_fraction": "share of the negative eigenvalues in the sum of magnitudes",
}
GRID = torch.linspace(-1.05, 1.05, 85, dtype=torch.float64)  # of a density: half a width apart
WIDTH = 0.05
BEND = 0.01  # share of the largest magnitude below which the density's axis is linear, and above which logarithmic
CONFIDENCE = 0.95
ROUND_OFF = 1e-9  # of a count of eigenvalues, by which it is not raised to the next whole number
PLACES = 16  # of a density that vary by themselves, about: its range over two widths


class Spectrum(NamedTuple):
    """The eigenvalues of a symmetric operator: all of them, or what an estimate knows.

    Attributes:
        values: all that may be nonzero, descending, shape ``(…, n)``; of an estimate, nodes, shape ``(probe, …, node)``.
        size: how many eigenvalues there are, with those that are zero.
        weights: how many eigenvalues each node stands for, of its shape; None if all are known.
        coarse: nodes and weights that half the steps give, to tell how far the other half moved a number.
        ends: of an estimate, its largest and its smallest eigenvalues, descending, shape ``(…, end)``.
        residuals: ‖A v − λ v‖ of these, which bound their errors; at least the round-off of the products.
        overlap: share of a gradient's square that lies in the span of the top eigenvectors, shape ``(…)``.
        overlap_error: how far the second half of the steps moved it; None if it is exact.
    """

    values: Tensor
    size: int
    weights: Tensor | None = None
    coarse: tuple[Tensor, Tensor] | None = None
    ends: Tensor | None = None
    residuals: Tensor | None = None
    overlap: Tensor | None = None
    overlap_error: Tensor | None = None


def eigenvalues(matrices: Tensor) -> Tensor:
    """Eigenvalues of positive semi-definite matrices, descending; round-off below zero is zero.

    Args:
        matrices: shape ``(…, n, n)``.

    Returns:
        Shape ``(…, n)``; NaN for a matrix that has entries which are not finite, without harm to the others.
    """
    finite, matrices = _finite(matrices)
    values: Tensor = torch.linalg.eigvalsh(matrices).flip(-1).clamp(min=0)
    return values.where(finite[..., None], torch.nan)


def eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of symmetric matrices, descending, and in the same order the columns of their eigenvectors.

    Args:
        matrices: shape ``(…, n, n)``.

    Returns:
        Shapes ``(…, n)`` and ``(…, n, n)``; NaN for a matrix that has entries which are not finite, without harm to the others.
    """
    finite, matrices = _finite(matrices)
    values, vectors = torch.linalg.eigh(matrices)
    return values.flip(-1).where(finite[..., None], torch.nan), vectors.flip(-1).where(
        finite[..., None, None], torch.nan
    )


def _finite(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Which matrices are finite, and all of them with the others zeroed: LAPACK would refuse the whole batch."""
    finite = matrices.sum(dim=(-2, -1)).isfinite()
    return finite, matrices if finite.all() else matrices.where(finite[..., None, None], 0)


def effective_rank(values: Tensor, level: float = 0.99, weights: Tensor | None = None) -> Tensor:
    """Fewest values whose magnitudes add up to `level` of the total (Kumar et al. 2020, srank with δ = 1 − level).

    Args:
        values: eigenvalues of an operator or singular values of features, shape ``(…, n)``, any order and sign.
        level: share of the total, in (0, 1].
        weights: how many eigenvalues each value stands for, of the same shape.

    Returns:
        Shape ``(…)``; 0 where every value is zero, NaN where any is.
    """
    magnitudes, order = values.abs().sort(dim=-1, descending=True)
    if weights is None:
        captured = magnitudes.cumsum(dim=-1)
        rank = ((captured < level * captured[..., -1:]).sum(dim=-1) + (captured[..., -1] > 0)).to(
            values.dtype
        )
    else:
        counts = weights.gather(-1, order)
        masses = magnitudes * counts
        captured = masses.cumsum(dim=-1)
        wanted = level * captured[..., -1:]
        place = (captured < wanted).sum(dim=-1, keepdim=True).clamp(max=values.shape[-1] - 1)
        missing = wanted - (captured - masses).gather(-1, place)
        before = (counts.cumsum(dim=-1) - counts).gather(-1, place)
        rank = (
            before
            + missing / magnitudes.gather(-1, place).clamp(min=torch.finfo(values.dtype).tiny)
        ).squeeze(-1)
        rank = (rank * (1 - ROUND_OFF)).ceil()
        rank = rank.where(captured[..., -1] > 0, 0)
    return rank.where(values.isfinite().all(dim=-1), torch.nan)


def stable_rank(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of magnitudes over the largest: of a positive semi-definite operator trace over top eigenvalue.

    Shape ``(…, n)`` → ``(…)``, NaN where all are zero; `weights` as `effective_rank` has them.
    """
    return _total(values.abs(), weights) / values.abs().amax(dim=-1)


def entropy_rank(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """exp(−Σ pᵢ log pᵢ) with pᵢ = |λᵢ| / Σ|λ| (Roy & Vetterli 2007).

    Shape ``(…, n)`` → ``(…)``, NaN where all are zero; `weights` as `effective_rank` has them.
    """
    shares = values.abs() / _total(values.abs(), weights)[..., None]
    return _total(torch.special.entr(shares), weights).exp()


def epsilon_rank(values: Tensor, epsilon: float = EPSILON, weights: Tensor | None = None) -> Tensor:
    """How many magnitudes are above `epsilon` of the largest; shapes as `effective_rank` has them, NaN where any value is."""
    magnitudes = values.abs()
    return absolute_epsilon_rank(values, epsilon * magnitudes.amax(dim=-1, keepdim=True), weights)


def absolute_epsilon_rank(
    values: Tensor, epsilon: float | Tensor = EPSILON, weights: Tensor | None = None
) -> Tensor:
    """How many magnitudes are above `epsilon`; shapes as `effective_rank` has them, NaN where any value is."""
    rank = _total((values.abs() > epsilon).to(values.dtype), weights)
    return rank.where(values.isfinite().all(dim=-1), torch.nan)


def negative_fraction(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ|λ| over the negative eigenvalues, as a share of all; shape ``(…, n)`` → ``(…)``, NaN where all are zero."""
    return _total(-values.clamp(max=0), weights) / _total(values.abs(), weights)


def _total(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum(dim=-1) if weights is None else (values * weights).sum(dim=-1)


def meanings(levels: Sequence[float]) -> dict[str, str]:
    """What is kept of every spectrum, by its name in the netCDF contract, and what it means."""
    ranks = {
        level_name(
            level, levels
        ): f"fewest eigenvalues whose magnitudes reach {level:.12g} of the total"
        for level in levels
    }
    return ranks | NUMBERS


def level_name(level: float, levels: Sequence[float]) -> str:
    """How the effective rank at a level is called: the first of the levels has the plain name."""
    return (
        "effective_rank"
        if level == levels[0]
        else f"effective_rank_at_{level:.12g}".replace(".", "_")
    )


def numbers(
    values: Tensor, weights: Tensor | None = None, levels: Sequence[float] = (0.99,)
) -> dict[str, Tensor]:
    """All numbers of `meanings`, shape ``(…)`` each; arguments as `effective_rank` has them."""
    found = {level_name(level, levels): effective_rank(values, level, weights) for level in levels}
    return found | {
        "stable_rank": stable_rank(values, weights),
        "entropy_rank": entropy_rank(values, weights),
        "epsilon_rank": epsilon_rank(values, weights=weights),
        "absolute_epsilon_rank": absolute_epsilon_rank(values, weights=weights),
        "top_eigenvalue": values.amax(dim=-1),
        "trace": _total(values, weights),
        "negative_fraction": negative_fraction(values, weights),
    }


def summary(
    spectrum: Spectrum, levels: Sequence[float] = (0.99,)
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The numbers of a spectrum, and their standard errors: 0 where all eigenvalues are known.

    An error has three parts, of which it is the root of the sum of squares: that of the probes, by the jackknife (Efron & Tibshirani 1993,
    equation 11.5); how far the second half of the steps moved the number; and, of a count, half of what the node stands for at which it
    is cut: how many eigenvalues lie beyond a node is known up to its weight (the inequalities of Chebyshev, Markov and Stieltjes). That of
    the top eigenvalue is at least its residual.

    Args:
        spectrum: of runs, shape ``(…)``.
        levels: of effective ranks.

    Returns:
        Both by name, shapes ``(…)``.
    """
    if spectrum.weights is None or spectrum.coarse is None:
        found = numbers(spectrum.values, levels=levels)
        return found, {name: torch.zeros_like(number) for name, number in found.items()}
    found = numbers(*_pooled(spectrum.values, spectrum.weights), levels)
    coarse = numbers(*_pooled(*spectrum.coarse), levels)
    probes = len(spectrum.values)
    others = [torch.arange(probes) != left_out for left_out in range(probes)]
    jackknife = [
        numbers(*_pooled(spectrum.values[kept], spectrum.weights[kept]), levels) for kept in others
    ]
    counted = _coarseness(spectrum.values, spectrum.weights, levels)
    errors = {}
    for name, number in found.items():
        without = torch.stack([one[name] for one in jackknife])
        variance = (without - without.mean(dim=0)).square().sum(dim=0) * (probes - 1) / probes
        errors[name] = (
            variance
            + (number - coarse[name]).square()
            + counted.get(name, torch.zeros_like(number)).square()
        ).sqrt()
    if spectrum.residuals is not None:
        errors["top_eigenvalue"] = errors["top_eigenvalue"].maximum(spectrum.residuals[..., 0])
    return found, errors


def _coarseness(values: Tensor, weights: Tensor, levels: Sequence[float]) -> dict[str, Tensor]:
    """Of each rank that is a count half of the heavier node beside its cut, shape ``(…)``: the mean over probes."""
    magnitudes, order = values.abs().sort(dim=-1, descending=True)
    counts = weights.gather(-1, order)
    captured = (magnitudes * counts).cumsum(dim=-1)
    reached = {level_name(level, levels): captured < level * captured[..., -1:] for level in levels}
    reached |= {
        "epsilon_rank": magnitudes > EPSILON * magnitudes[..., :1],
        "absolute_epsilon_rank": magnitudes > EPSILON,
    }
    found = {}
    for name, inside in reached.items():
        cut = inside.sum(dim=-1, keepdim=True)
        beside = nn.functional.pad(counts, (1, 1)).unfold(-1, 2, 1).amax(dim=-1).gather(-1, cut)
        found[name] = beside.squeeze(-1).mean(dim=0) / 2
    return found


def density(spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    """Share of the eigenvalues per unit of a bent axis, smoothed, on the points of `GRID`.

    The axis is asinh(λ / (b·|λ|max)) / asinh(1 / b) with b = `BEND`, from −1 to 1; the kernel is normal, of deviation `WIDTH` on that axis.

    Returns:
        The density, shape ``(…, grid)``, and a bound on its largest error at any point, shape ``(…)``, which holds in 95 % of draws: 0
        where all eigenvalues are known.
    """
    if spectrum.weights is None or spectrum.coarse is None:
        values = spectrum.values
        found = _smoothed(
            values, torch.ones_like(values), values.abs().amax(dim=-1, keepdim=True), spectrum.size
        )
        return found, torch.zeros_like(found[..., 0])
    probes = len(spectrum.values)
    scale = spectrum.values.abs().amax(dim=(0, -1)).unsqueeze(-1)
    fine, coarse = (
        _smoothed(*nodes, scale, spectrum.size)
        for nodes in ((spectrum.values, spectrum.weights), spectrum.coarse)
    )
    quantile = float(stdtrit(probes - 1, 1 - (1 - CONFIDENCE) / 2 / PLACES))
    bound = quantile * fine.std(dim=0).amax(dim=-1) / probes**0.5 + (fine - coarse).mean(
        dim=0
    ).abs().amax(dim=-1)
    return fine.mean(dim=0), bound


def grid() -> Tensor:
    """The eigenvalues at the points of a density, over the largest magnitude."""
    return BEND * torch.sinh(GRID * torch.asinh(torch.tensor(1 / BEND, dtype=torch.float64)))


def _smoothed(values: Tensor, weights: Tensor, scale: Tensor, size: int) -> Tensor:
    """A density on the grid, shape ``(…, grid)``; eigenvalues that no weight stands for are zero."""
    bent = torch.asinh(values / (BEND * scale)) / torch.asinh(torch.tensor(1 / BEND))
    distances = (GRID.to(values) - bent[..., None]) / WIDTH
    kernels = torch.exp(-distances.square() / 2) / (WIDTH * (2 * torch.pi) ** 0.5)
    at_zero = torch.exp(-(GRID.to(values) / WIDTH).square() / 2) / (WIDTH * (2 * torch.pi) ** 0.5)
    found: Tensor = (
        (weights[..., None] * kernels).sum(dim=-2)
        + (size - weights.sum(dim=-1, keepdim=True)) * at_zero
    ) / size
    return found


def _pooled(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of all probes as one quadrature, shapes ``(…, probe · node)``."""
    return values.movedim(0, -2).flatten(-2), weights.movedim(0, -2).flatten(-2) / len(values)
