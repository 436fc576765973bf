"""Eigenvalues of matrices, and the numbers that summarize a spectrum.

Public code uses the same names for different quantities, so every docstring states its formula.
λᵢ are the eigenvalues. If all are known, each value counts once. If they are estimated, each value
is a quadrature node, and its weight says how many eigenvalues it stands for. All sums below are
weighted, so an estimated rank is not the rank of the few Ritz values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
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

# Points of a density on its bent axis, half a kernel width apart.
GRID = torch.linspace(-1.05, 1.05, 85, dtype=torch.float64)
WIDTH = 0.05  # standard deviation of the kernel
# The axis is linear below this share of the largest |λ|, and logarithmic above.
BEND = 0.01
CONFIDENCE = 0.95
# Independent points of a density, roughly: the range of the axis over two kernel widths.
PLACES = 16
# A count of eigenvalues this little above a whole number is not rounded up.
ROUND_OFF = 1e-9


class Spectrum(NamedTuple):
    """The spectrum of a symmetric operator: all eigenvalues, or an estimate.

    Attributes:
        values: all eigenvalues that may be nonzero, descending, shape ``(*run, n)``; of an
            estimate, quadrature nodes, shape ``(probe, *run, node)``.
        size: number of eigenvalues, zeros included.
        rank_limit: upper bound on the number of nonzero eigenvalues; None if it is not known.
        weights: how many eigenvalues each node stands for, same shape as the nodes; None if all
            eigenvalues are known.
        coarse: nodes and weights after half the steps, which show how much the other half changed.
        ends: of an estimate, the largest and the smallest eigenvalues, descending, shape
            ``(*run, end)``.
        residuals: ‖A v − λ v‖ of the ends, an upper bound on their errors; at least the round-off
            of the products.
        overlap: ‖P g‖² / ‖g‖² of a gradient g, with P the projection on the top eigenvectors,
            shape ``(*run,)``.
        overlap_margin: how much the second half of the steps changed the overlap; None if exact.
        top_vectors: the Gram matrix's eigenvectors of the largest eigenvalues, as columns, shape
            ``(*run, row, top)``; None if there is no Gram matrix or no overlap was asked for.
        block: of an estimate, neighbouring nodes that a Krylov space cannot tell apart.
    """

    values: Tensor
    size: int
    weights: Tensor | None = None
    coarse: tuple[Tensor, Tensor] | None = None
    ends: Tensor | None = None
    residuals: Tensor | None = None
    overlap: Tensor | None = None
    overlap_margin: Tensor | None = None
    top_vectors: Tensor | None = None
    block: int = 1
    rank_limit: int | None = None


def eigenvalues(matrices: Tensor) -> Tensor:
    """Compute the eigenvalues of positive semi-definite matrices.

    Args:
        matrices: shape ``(…, n, n)``.

    Returns:
        Shape ``(…, n)``, descending. Negative round-off becomes 0. A matrix with an entry that is
        not finite gives NaN and does not affect the others.
    """
    is_finite, matrices = _zero_nonfinite(matrices)
    values: Tensor = torch.linalg.eigvalsh(matrices).flip(-1).clamp(min=0)
    return values.where(is_finite[..., None], torch.nan)


def eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the eigenvalues and eigenvectors of symmetric matrices.

    Args:
        matrices: shape ``(…, n, n)``.

    Returns:
        Eigenvalues, shape ``(…, n)``, descending, and eigenvectors as columns in the same order,
        shape ``(…, n, n)``. A matrix with an entry that is not finite gives NaN and does not
        affect the others.
    """
    is_finite, matrices = _zero_nonfinite(matrices)
    values, vectors = torch.linalg.eigh(matrices)
    values = values.flip(-1).where(is_finite[..., None], torch.nan)
    return values, vectors.flip(-1).where(is_finite[..., None, None], torch.nan)


def _zero_nonfinite(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Replace matrices that are not finite by zeros: LAPACK would refuse the whole batch.

    Returns:
        Which matrices are finite, shape ``(…)``, and the matrices.
    """
    is_finite = matrices.sum(dim=(-2, -1)).isfinite()
    if is_finite.all():
        return is_finite, matrices
    return is_finite, matrices.where(is_finite[..., None, None], 0)


def effective_rank(values: Tensor, level: float = 0.99, weights: Tensor | None = None) -> Tensor:
    """Count the largest magnitudes that add up to a share of the total.

    min{k : |λ|₍₁₎ + … + |λ|₍ₖ₎ ≥ level · Σ|λᵢ|}, the srank of Kumar et al. 2021 (arXiv 2010.14498,
    section 3) with δ = 1 − level.

    Args:
        values: eigenvalues of an operator or singular values of features, shape ``(…, n)``, any
            order and sign.
        level: share of the total, in (0, 1].
        weights: how many eigenvalues each value stands for, same shape.

    Returns:
        Shape ``(…)``; 0 where all values are zero, NaN where any value is NaN.
    """
    magnitudes, order = values.abs().sort(dim=-1, descending=True)
    if weights is None:
        captured = magnitudes.cumsum(dim=-1)
        below = (captured < level * captured[..., -1:]).sum(dim=-1)
        rank = (below + (captured[..., -1] > 0)).to(values.dtype)
    else:
        rank = _weighted_effective_rank(magnitudes, weights.gather(-1, order), level)
    return rank.where(values.isfinite().all(dim=-1), torch.nan)


def _weighted_effective_rank(magnitudes: Tensor, counts: Tensor, level: float) -> Tensor:
    """Compute the effective rank of values that stand for several eigenvalues.

    Args:
        magnitudes: shape ``(…, n)``, descending.
        counts: how many eigenvalues each stands for, same shape.
        level: share of the total.
    """
    masses = magnitudes * counts
    captured = masses.cumsum(dim=-1)
    threshold = level * captured[..., -1:]
    # The value at which the sum passes the threshold counts in part.
    last = magnitudes.shape[-1] - 1
    crossing = (captured < threshold).sum(dim=-1, keepdim=True).clamp(max=last)
    missing = threshold - (captured - masses).gather(-1, crossing)
    counts_before = (counts.cumsum(dim=-1) - counts).gather(-1, crossing)
    tiny = torch.finfo(magnitudes.dtype).tiny
    counts_within = missing / magnitudes.gather(-1, crossing).clamp(min=tiny)
    rank = (counts_before + counts_within).squeeze(-1)
    rank = (rank * (1 - ROUND_OFF)).ceil()
    return rank.where(captured[..., -1] > 0, 0)


def stable_rank(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Divide the sum of magnitudes by the largest: Σ|λᵢ| / max|λᵢ|.

    For a positive semi-definite A = BᵀB, this is ‖B‖²_F / ‖B‖²₂ (Rudelson & Vershynin 2007,
    J. ACM 54(4), section 1).

    Args:
        values: shape ``(…, n)``.
        weights: as in `effective_rank`.

    Returns:
        Shape ``(…)``; NaN where all values are zero.
    """
    return _total(values.abs(), weights) / values.abs().amax(dim=-1)


def entropy_rank(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Exponentiate the entropy of the spectrum: exp(−Σ pᵢ log pᵢ) with pᵢ = |λᵢ| / Σ|λⱼ|.

    Roy & Vetterli 2007 (EUSIPCO, definition 1) call it the effective rank.

    Args:
        values: shape ``(…, n)``.
        weights: as in `effective_rank`.

    Returns:
        Shape ``(…)``; NaN where all values are zero.
    """
    shares = values.abs() / _total(values.abs(), weights)[..., None]
    return _total(torch.special.entr(shares), weights).exp()


def epsilon_rank(values: Tensor, epsilon: float = EPSILON, weights: Tensor | None = None) -> Tensor:
    """Count the magnitudes above a share of the largest: #{i : |λᵢ| > ε · max|λⱼ|}.

    This is the numerical rank (Golub & Van Loan, Matrix Computations, 4th ed., section 5.4.1).

    Args:
        values: shape ``(…, n)``.
        epsilon: share of the largest magnitude.
        weights: as in `effective_rank`.

    Returns:
        Shape ``(…)``; NaN where any value is NaN.
    """
    magnitudes = values.abs()
    return absolute_epsilon_rank(values, epsilon * magnitudes.amax(dim=-1, keepdim=True), weights)


def absolute_epsilon_rank(
    values: Tensor, epsilon: float | Tensor = EPSILON, weights: Tensor | None = None
) -> Tensor:
    """Count the magnitudes above a threshold: #{i : |λᵢ| > ε}.

    Args:
        values: shape ``(…, n)``.
        epsilon: threshold, a number or shape ``(…, 1)``.
        weights: as in `effective_rank`.

    Returns:
        Shape ``(…)``; NaN where any value is NaN.
    """
    rank = _total((values.abs() > epsilon).to(values.dtype), weights)
    return rank.where(values.isfinite().all(dim=-1), torch.nan)


def negative_fraction(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the share of negative eigenvalues in the magnitudes: Σ_{λᵢ<0} |λᵢ| / Σ|λⱼ|.

    Args:
        values: shape ``(…, n)``.
        weights: as in `effective_rank`.

    Returns:
        Shape ``(…)``; NaN where all values are zero.
    """
    return _total(-values.clamp(max=0), weights) / _total(values.abs(), weights)


def _total(values: Tensor, weights: Tensor | None) -> Tensor:
    """Sum values, each as often as its weight says."""
    return values.sum(dim=-1) if weights is None else (values * weights).sum(dim=-1)


def meanings(levels: Sequence[float]) -> dict[str, str]:
    """Describe every number of a spectrum, by its name in the netCDF files.

    Args:
        levels: of the effective ranks.
    """
    ranks = {}
    for level in levels:
        meaning = f"fewest eigenvalues whose magnitudes reach {level:.12g} of the total"
        ranks[level_name(level, levels)] = meaning
    return ranks | NUMBERS


def rank_names(levels: Sequence[float]) -> list[str]:
    """List the ranks of a spectrum by name.

    Args:
        levels: of the effective ranks.
    """
    effective_ranks = [level_name(level, levels) for level in levels]
    counts = [*effective_ranks, "epsilon_rank", "absolute_epsilon_rank"]
    return [*counts, "entropy_rank", "stable_rank"]


def level_name(level: float, levels: Sequence[float]) -> str:
    """Name the effective rank at a level; the first level has the plain name."""
    if level == levels[0]:
        return "effective_rank"
    return f"effective_rank_at_{level:.12g}".replace(".", "_")


def numbers(
    values: Tensor, weights: Tensor | None = None, levels: Sequence[float] = (0.99,)
) -> dict[str, Tensor]:
    """Compute all numbers of `meanings`, shape ``(…)`` each; arguments as in `effective_rank`."""
    ranks = {level_name(level, levels): effective_rank(values, level, weights) for level in levels}
    return ranks | {
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
    """Compute the numbers of a spectrum and their margins of error.

    A number ± its margin is a 95 % interval over draws of the probes. The margin is 0 where all
    eigenvalues are known. That of an estimate is the sum of three parts:

    - the spread over probes: the standard error by the jackknife (Efron & Tibshirani 1993,
      equation 11.5), times Student's quantile for so few probes;
    - how much the second half of the steps changed the number;
    - for a rank that counts, the weight of the nodes at the cut: the number of eigenvalues beyond a
      node is known up to its weight (inequalities of Chebyshev, Markov and Stieltjes). Vectors that
      share a Krylov space give so many nodes in one place.

    The margin of the top eigenvalue is at least its residual.

    Args:
        spectrum: leading shape ``(*run,)``.
        levels: of the effective ranks.

    Returns:
        Numbers and margins by name, shapes ``(*run,)``.
    """
    if spectrum.weights is None or spectrum.coarse is None:
        exact = numbers(spectrum.values, levels=levels)
        return exact, {name: torch.zeros_like(number) for name, number in exact.items()}
    estimates = numbers(*_pool_probes(spectrum.values, spectrum.weights), levels)
    coarse = numbers(*_pool_probes(*spectrum.coarse), levels)
    variances = _jackknife_variances(spectrum.values, spectrum.weights, levels)
    weights_at_cut = _weights_at_cut(spectrum.values, spectrum.weights, spectrum.block, levels)
    quantile = _student_quantile(probes=len(spectrum.values), places=1)
    margins = {}
    for name, number in estimates.items():
        margin = quantile * variances[name].sqrt() + (number - coarse[name]).abs()
        margins[name] = margin + weights_at_cut.get(name, 0)
    if spectrum.residuals is not None:
        top_residual = spectrum.residuals[..., 0]
        margins["top_eigenvalue"] = margins["top_eigenvalue"].maximum(top_residual)
    return estimates, margins


def _student_quantile(probes: int, places: int) -> float:
    """Return the factor from a standard error to a margin that holds with `CONFIDENCE`.

    Args:
        probes: whose spread gives the standard error.
        places: number of intervals that hold together (Bonferroni).
    """
    # here, because only estimates need scipy, and its import takes a while
    from scipy.special import stdtrit

    return float(stdtrit(probes - 1, 1 - (1 - CONFIDENCE) / 2 / places))


def _jackknife_variances(
    values: Tensor, weights: Tensor, levels: Sequence[float]
) -> dict[str, Tensor]:
    """Compute the variance of each number from estimates that leave one probe out."""
    probes = len(values)
    leave_one_out = []
    for left_out in range(probes):
        others = [probe for probe in range(probes) if probe != left_out]
        leave_one_out.append(numbers(*_pool_probes(values[others], weights[others]), levels))
    variances = {}
    for name in leave_one_out[0]:
        replicates = torch.stack([replicate[name] for replicate in leave_one_out])
        deviations = replicates - replicates.mean(dim=0)
        variances[name] = deviations.square().sum(dim=0) * (probes - 1) / probes
    return variances


def _weights_at_cut(
    values: Tensor, weights: Tensor, block: int, levels: Sequence[float]
) -> dict[str, Tensor]:
    """Compute the weight of the nodes next to the cut of each counting rank.

    It is that of the heavier side of the cut.

    Args:
        values: nodes, shape ``(probe, *run, node)``.
        weights: of the nodes, same shape.
        block: nodes on each side of the cut that are added up.
        levels: of the effective ranks.

    Returns:
        Means over probes by the name of the rank, shapes ``(*run,)``.
    """
    magnitudes, order = values.abs().sort(dim=-1, descending=True)
    counts = weights.gather(-1, order)
    captured = (magnitudes * counts).cumsum(dim=-1)
    is_counted = {
        level_name(level, levels): captured < level * captured[..., -1:] for level in levels
    }
    is_counted["epsilon_rank"] = magnitudes > EPSILON * magnitudes[..., :1]
    is_counted["absolute_epsilon_rank"] = magnitudes > EPSILON
    sides = nn.functional.pad(counts, (block, block)).unfold(-1, block, 1).sum(dim=-1)
    heavier_sides = torch.maximum(sides[..., :-block], sides[..., block:])
    weights_at_cut = {}
    for name, counted in is_counted.items():
        cut = counted.sum(dim=-1, keepdim=True)
        weights_at_cut[name] = heavier_sides.gather(-1, cut).squeeze(-1).mean(dim=0)
    return weights_at_cut


def _pool_probes(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the nodes of all probes into one quadrature, shapes ``(*run, probe·node)``."""
    pooled_weights = weights.movedim(0, -2).flatten(-2) / len(values)
    return values.movedim(0, -2).flatten(-2), pooled_weights


def density(spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    """Compute the smoothed density of the eigenvalues on the points of `GRID`.

    The axis is asinh(λ / (b·max|λ|)) / asinh(1 / b) with b = `BEND`, from −1 to 1. The kernel is
    normal, with standard deviation `WIDTH` on this axis.

    Returns:
        Share of the eigenvalues per unit of the axis, shape ``(*run, grid)``, and a bound on its
        largest error at any point, shape ``(*run,)``. The bound holds in 95 % of draws; it is 0
        where all eigenvalues are known.
    """
    if spectrum.weights is None or spectrum.coarse is None:
        scale = spectrum.values.abs().amax(dim=-1, keepdim=True)
        weights = torch.ones_like(spectrum.values)
        exact = _smooth(spectrum.values, weights, scale, spectrum.size)
        return exact, torch.zeros_like(exact[..., 0])
    probes = len(spectrum.values)
    scale = spectrum.values.abs().amax(dim=(0, -1)).unsqueeze(-1)
    fine = _smooth(spectrum.values, spectrum.weights, scale, spectrum.size)
    coarse = _smooth(*spectrum.coarse, scale, spectrum.size)
    quantile = _student_quantile(probes, PLACES)
    error_of_probes = quantile * fine.std(dim=0).amax(dim=-1) / probes**0.5
    error_of_steps = (fine - coarse).mean(dim=0).abs().amax(dim=-1)
    return fine.mean(dim=0), error_of_probes + error_of_steps


def grid() -> Tensor:
    """Compute the eigenvalues at the points of `GRID`, as multiples of the largest magnitude."""
    return BEND * torch.sinh(GRID * torch.asinh(torch.tensor(1 / BEND, dtype=torch.float64)))


def _smooth(values: Tensor, weights: Tensor, scale: Tensor, size: int) -> Tensor:
    """Compute a density on the grid, shape ``(…, grid)``.

    Eigenvalues beyond the sum of the weights are zero.
    """
    bent = torch.asinh(values / (BEND * scale)) / torch.asinh(torch.tensor(1 / BEND))
    grid_points = GRID.to(values)
    kernels = _normal_density((grid_points - bent[..., None]) / WIDTH)
    kernel_at_zero = _normal_density(grid_points / WIDTH)
    zeros = size - weights.sum(dim=-1, keepdim=True)
    total: Tensor = (weights[..., None] * kernels).sum(dim=-2) + zeros * kernel_at_zero
    return total / size


def _normal_density(distances: Tensor) -> Tensor:
    """Compute a normal density of standard deviation `WIDTH` at distances in units of `WIDTH`."""
    densities: Tensor = torch.exp(-distances.square() / 2) / (WIDTH * (2 * torch.pi) ** 0.5)
    return densities
