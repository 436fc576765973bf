"""Resample seeds: bootstrap intervals, permutations, signs and circular shifts.

A statistic is a function of how often each seed counts. So its estimate, its bootstrap and its
jackknife are the same function of three matrices of counts, and one matrix product serves thousands
of comparisons. Draws depend only on a random seed and on how many seeds there are. A row of a table
therefore does not change when other rows are added or removed.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from plasticity.rng import generator

CONFIDENCE = 0.95  # of all intervals over seeds and settings
# Its two-sided quantiles, rounded to the numbers nearest to 0.025 and 0.975.
TAILS = (round((1 - CONFIDENCE) / 2, 12), round((1 + CONFIDENCE) / 2, 12))
SIGNIFICANCE_LEVEL = 0.05
# Bootstrap intervals of fewer seeds cover too little: they cannot reach beyond the extreme values.
MIN_BOOTSTRAP_SEEDS = 8
MAX_EXACT_SEEDS = 7  # up to this number, all permutations are used
ROUND_OFF = 1e-12
UNEVEN = "too few values differ for an interval"
BCA, STUDENT = "BCa over seeds", "Student's t over seeds"

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Draws:
    """Counter-based draws, which are the same for the same number of seeds.

    Attributes:
        number: how many draws of each kind.
        seed: random seed of all draws.
    """

    number: int = 1999
    seed: int = 0

    def resamples(self, seeds: int, stratum: int = 0) -> np.ndarray:
        """Draw indices of seeds with replacement, independently for each stratum.

        Returns:
            Shape ``(draw, seed)``.
        """
        return _resamples(self.number, self.seed, seeds, stratum)

    def counts(self, seeds: int, stratum: int = 0) -> np.ndarray:
        """Count how often each seed is in each of the `resamples`, shape ``(draw, seed)``."""
        return _counts(self.number, self.seed, seeds, stratum)

    def permutations(self, seeds: int) -> np.ndarray:
        """Permute the seeds, shape ``(draw, seed)``; the first draw is the identity.

        All permutations are returned for at most `MAX_EXACT_SEEDS` seeds.
        """
        return _permutations(self.number, self.seed, seeds)

    def signs(self, seeds: int, stratum: int | None = None) -> np.ndarray:
        """Draw a sign for each seed, shape ``(draw, seed)``; in the first draw all are +1.

        All combinations are returned if there are no more than draws, unless a stratum is given.
        """
        return _signs(self.number, self.seed, seeds, stratum)

    def shifts(self, seeds: int, tasks: int) -> np.ndarray:
        """Draw circular shifts, shape ``(draw, seed)``; 0 in the first draw and nowhere else."""
        return _shifts(self.number, self.seed, seeds, tasks)


@functools.lru_cache(maxsize=64)
def _resamples(number: int, seed: int, seeds: int, stratum: int) -> np.ndarray:
    random = generator(seed, f"resamples of {seeds} seeds", stratum)
    return random.integers(0, seeds, (number, seeds))


@functools.lru_cache(maxsize=64)
def _counts(number: int, seed: int, seeds: int, stratum: int) -> np.ndarray:
    resamples = _resamples(number, seed, seeds, stratum)
    counts = [(resamples == index).sum(axis=1) for index in range(seeds)]
    return np.stack(counts, axis=1).astype(np.float64)


@functools.lru_cache(maxsize=64)
def _permutations(number: int, seed: int, seeds: int) -> np.ndarray:
    if seeds <= MAX_EXACT_SEEDS:
        return np.array(list(itertools.permutations(range(seeds))))
    random = generator(seed, f"permutations of {seeds} seeds")
    identity = np.arange(seeds)
    drawn = random.permuted(np.tile(identity, (number, 1)), axis=1)
    return np.vstack([identity, drawn])


@functools.lru_cache(maxsize=64)
def _signs(number: int, seed: int, seeds: int, stratum: int | None) -> np.ndarray:
    if stratum is None and 2**seeds <= number + 1:
        return np.array(list(itertools.product([1.0, -1.0], repeat=seeds)))
    random = generator(seed, f"signs of {seeds} seeds", stratum or 0)
    drawn = random.choice([1.0, -1.0], (number, seeds))
    return np.vstack([np.ones(seeds), drawn])


@functools.lru_cache(maxsize=64)
def _shifts(number: int, seed: int, seeds: int, tasks: int) -> np.ndarray:
    random = generator(seed, f"shifts of {seeds} seeds by {tasks} tasks")
    drawn = random.integers(1, tasks, (number, seeds))
    return np.vstack([np.zeros(seeds, drawn.dtype), drawn])


def mean_over_seeds(values: np.ndarray) -> Statistic:
    """Express the mean over seeds as a statistic.

    Args:
        values: shape ``(…, seed)``.
    """
    by_seed = np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.asarray(counts @ by_seed / counts.sum(axis=1, keepdims=True))

    return statistic


def bca(statistic: Statistic, seeds: int, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Compute the bias-corrected and accelerated bootstrap interval (95 %), expanded for few seeds.

    Efron 1987. The expansion is that of Hesterberg 2015 (arXiv 1411.5279, section 5.4): the normal
    quantile is replaced by √(n/(n−1)) times Student's, because the percentiles of a bootstrap of
    few values are too close to each other.

    Args:
        statistic: from counts, shape ``(draw, seed)``, to values, shape ``(draw, comparison)``; NaN
            where a resample has no value.
        seeds: number of seeds.
        draws: of seeds.

    Returns:
        Low and high of each comparison. NaN for fewer than `MIN_BOOTSTRAP_SEEDS` seeds, where the
        statistic is NaN, and where the interval would exclude the estimate. The last happens when
        all seeds but one have the same value, so that nearly all resamples give the same statistic.
    """
    estimate = statistic(np.ones((1, seeds)))[0]
    if seeds < MIN_BOOTSTRAP_SEEDS:
        return np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    # contiguous draws of a comparison are sorted twice as fast; NaN last
    drawn = np.sort(np.ascontiguousarray(statistic(draws.counts(seeds)).T), axis=1).T
    valid = np.isfinite(drawn).sum(axis=0)
    near = ROUND_OFF * np.maximum(1, abs(estimate))
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (drawn < estimate - near).sum(axis=0)
        at_most = (drawn <= estimate + near).sum(axis=0)
        share_below = (below + at_most) / 2 / valid
    smallest_share = 1 / (len(drawn) + 1)
    bias = stats.norm.ppf(np.clip(share_below, smallest_share, 1 - smallest_share))
    acceleration = _acceleration(statistic, seeds)
    reach = math.sqrt(seeds / (seeds - 1)) * stats.t.ppf(TAILS[1], seeds - 1)
    ends = []
    for quantile in (-reach, reach):
        denominator = np.maximum(1 - acceleration * (bias + quantile), ROUND_OFF)
        share = stats.norm.cdf(bias + (bias + quantile) / denominator)
        end = _quantile_of_sorted(drawn, valid, share)
        ends.append(np.where(np.isfinite(estimate) & (valid > 0), end, np.nan))
    low, high = ends
    contains_estimate = (low <= estimate + near) & (estimate - near <= high)
    return np.where(contains_estimate, low, np.nan), np.where(contains_estimate, high, np.nan)


def _acceleration(statistic: Statistic, seeds: int) -> np.ndarray:
    """Estimate the acceleration of each comparison by the jackknife; 0 where it is undefined."""
    without_one = statistic(1 - np.eye(seeds))
    influence = without_one.mean(axis=0) - without_one
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (influence**3).sum(axis=0) / (6 * (influence**2).sum(axis=0) ** 1.5)
    return np.asarray(np.nan_to_num(acceleration, nan=0.0, posinf=0.0, neginf=0.0))


def _quantile_of_sorted(drawn: np.ndarray, valid: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolate the quantile of the valid draws of each comparison.

    Args:
        drawn: sorted, NaN last, shape ``(draw, comparison)``.
        valid: number of draws that are not NaN, shape ``(comparison,)``.
        share: of draws below the quantile, shape ``(comparison,)``.
    """
    last = np.maximum(valid - 1, 0)
    position = np.clip(share * (valid - 1), 0, last)
    lower_index = np.floor(np.nan_to_num(position)).astype(int)
    upper_index = np.minimum(lower_index + 1, last)
    lower = np.take_along_axis(drawn, lower_index[None], axis=0)[0]
    upper = np.take_along_axis(drawn, upper_index[None], axis=0)[0]
    return np.asarray(lower + (position - lower_index) * (upper - lower))


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute Student's t interval (95 %) of means over seeds.

    Args:
        values: shape ``(…, seed)``.

    Returns:
        Low and high, shape ``(…)``; NaN for fewer than two seeds.
    """
    seeds = values.shape[-1]
    if seeds < 2:
        return np.full(values.shape[:-1], np.nan), np.full(values.shape[:-1], np.nan)
    # not scipy's sem, which takes ten times as long for few numbers
    error = values.std(axis=-1, ddof=1) / seeds**0.5
    reach = _student_quantile(seeds) * error
    mean = values.mean(axis=-1)
    return mean - reach, mean + reach


@functools.cache
def _student_quantile(seeds: int) -> np.float64:
    """Compute the upper quantile of Student's t for a mean over seeds."""
    return np.float64(stats.t.ppf(TAILS[1], seeds - 1))


def interval(values: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray, str]:
    """Compute the interval (95 %) of means over seeds: BCa, or Student's t for few seeds.

    Args:
        values: shape ``(…, seed)``.
        draws: of seeds.

    Returns:
        Low and high, shape ``(…)``, and the name of the method; it is empty without an interval.
    """
    seeds = values.shape[-1]
    if seeds < MIN_BOOTSTRAP_SEEDS:
        low, high = t_interval(values)
        return low, high, STUDENT if seeds > 1 else ""
    low, high = bca(mean_over_seeds(values), seeds, draws)
    return low.reshape(values.shape[:-1]), high.reshape(values.shape[:-1]), BCA


def permutation_test(pairs: np.ndarray, draws: Draws) -> np.ndarray:
    """Compare the mean over matched pairs with the means over permuted pairs: two-sided p.

    Args:
        pairs: what seed i of one series and seed j of another have in common, shape ``(…, i, j)``.
        draws: of permutations.

    Returns:
        Shape ``(…)``; NaN where a pair is NaN.
    """
    return two_sided_p(permuted_means(pairs, draws))


def permuted_means(pairs: np.ndarray, draws: Draws) -> np.ndarray:
    """Average over the pairs of each permutation, minus the mean over all pairs.

    Args:
        pairs: what seed i of one series and seed j of another have in common, shape ``(…, i, j)``.
        draws: of permutations; the first is the identity.

    Returns:
        Shape ``(draw, …)``.
    """
    seeds = pairs.shape[-1]
    centred = pairs - pairs.mean(axis=(-2, -1), keepdims=True)
    means = matching_weights(seeds, draws) @ centred.reshape(-1, seeds**2).T
    return np.asarray(means.reshape(-1, *pairs.shape[:-2]))


def matching_weights(seeds: int, draws: Draws) -> np.ndarray:
    """Build the weights that average the matched pairs of each permutation.

    Args:
        seeds: number of seeds.
        draws: of permutations; the first is the identity.

    Returns:
        Shape ``(draw, seed · seed)``.
    """
    orders = draws.permutations(seeds)
    weights = np.zeros((len(orders), seeds, seeds))
    weights[np.arange(len(orders))[:, None], np.arange(seeds), orders] = 1 / seeds
    return weights.reshape(len(orders), -1)


def two_sided_p(drawn: np.ndarray) -> np.ndarray:
    """Compute the share of draws that are at least as far from 0 as the first, the observed one.

    Args:
        drawn: shape ``(draw, …)``.

    Returns:
        Shape ``(…)``; NaN where the observed value is NaN.
    """
    sizes = np.abs(drawn)
    share = (sizes >= sizes[0] - ROUND_OFF).mean(axis=0)
    return np.where(np.isfinite(drawn[0]), share, np.nan)
