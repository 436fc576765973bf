"""Seeds drawn again: bootstrap intervals, permutations, signs and shifts.

A statistic is a function of how often each seed counts, so that an estimate, its bootstrap and its jackknife are one function of three
matrices of counts, and thousands of comparisons are one product of matrices. Draws depend on nothing but a seed and how many there are to
draw from: a row of a table stays what it is when others come or go.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from plasticity.rng import generator

CONFIDENCE = 0.95
FEWEST_SEEDS = 8  # of fewer, a bootstrap interval covers too little: it cannot reach beyond the least and the greatest
EXACT = 7  # up to so many seeds all their permutations are taken
ROUND_OFF = 1e-12
UNEVEN = "too few values differ for an interval"
BCA, STUDENT = "BCa over seeds", "Student's t over seeds"

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Draws:
    """Counter-based draws: the same for the same number of seeds.

    Attributes:
        number: how many draws of each kind.
        seed: of all of them.
    """

    number: int = 1999
    seed: int = 0

    def places(self, seeds: int, stratum: int = 0) -> np.ndarray:
        """Which seeds are drawn in each resample, with replacement: shape ``(draw, seed)``; strata are drawn by themselves."""
        return _places(self.number, self.seed, seeds, stratum)

    def counts(self, seeds: int, stratum: int = 0) -> np.ndarray:
        """How often each seed is drawn in each of these resamples: shape ``(draw, seed)``."""
        return _counts(self.number, self.seed, seeds, stratum)

    def permutations(self, seeds: int) -> np.ndarray:
        """Orders of the seeds, the first as they are; all there are, of few: shape ``(draw, seed)``."""
        return _permutations(self.number, self.seed, seeds)

    def signs(self, seeds: int, stratum: int | None = None) -> np.ndarray:
        """A sign for each seed, first all plus: shape ``(draw, seed)``. All there are, of few; of a stratum they are always drawn."""
        return _signs(self.number, self.seed, seeds, stratum)

    def shifts(self, seeds: int, tasks: int) -> np.ndarray:
        """Circular shifts, none of them 0 but those of the first draw: shape ``(draw, seed)``."""
        return _shifts(self.number, self.seed, seeds, tasks)


@functools.lru_cache(maxsize=64)
def _places(number: int, seed: int, seeds: int, stratum: int) -> np.ndarray:
    return generator(seed, f"resamples of {seeds} seeds", stratum).integers(
        0, seeds, (number, seeds)
    )


@functools.lru_cache(maxsize=64)
def _counts(number: int, seed: int, seeds: int, stratum: int) -> np.ndarray:
    return np.stack(
        [(_places(number, seed, seeds, stratum) == one).sum(axis=1) for one in range(seeds)], axis=1
    ).astype(np.float64)


@functools.lru_cache(maxsize=64)
def _permutations(number: int, seed: int, seeds: int) -> np.ndarray:
    if seeds <= EXACT:
        return np.array(list(itertools.permutations(range(seeds))))
    draw = generator(seed, f"permutations of {seeds} seeds")
    return np.vstack(
        [np.arange(seeds), draw.permuted(np.tile(np.arange(seeds), (number, 1)), axis=1)]
    )


@functools.lru_cache(maxsize=64)
def _signs(number: int, seed: int, seeds: int, stratum: int | None) -> np.ndarray:
    if stratum is None and 2**seeds <= number + 1:
        return np.array(list(itertools.product([1.0, -1.0], repeat=seeds)))
    return np.vstack(
        [
            np.ones(seeds),
            generator(seed, f"signs of {seeds} seeds", stratum or 0).choice(
                [1.0, -1.0], (number, seeds)
            ),
        ]
    )


@functools.lru_cache(maxsize=64)
def _shifts(number: int, seed: int, seeds: int, tasks: int) -> np.ndarray:
    drawn = generator(seed, f"shifts of {seeds} seeds by {tasks} tasks").integers(
        1, tasks, (number, seeds)
    )
    return np.vstack([np.zeros(seeds, drawn.dtype), drawn])


def of_each(values: np.ndarray) -> Statistic:
    """The mean over seeds as a statistic.

    Args:
        values: shape ``(…, seed)``.
    """
    return lambda counts: (
        counts
        @ np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
        / counts.sum(axis=1, keepdims=True)
    )


def bca(statistic: Statistic, seeds: int, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated bootstrap interval (95 %), expanded for few seeds.

    Efron 1987; what is expanded (Hesterberg 2015, arXiv 1411.5279, section 5.4) is the normal quantile, to √(n/(n−1)) times Student's: of
    few values a bootstrap's percentiles lie too close to each other.

    Args:
        statistic: from counts of shape ``(draw, seed)`` to values of shape ``(draw, comparison)``; NaN where a resample has none.
        seeds: how many there are.
        draws: of seeds.

    Returns:
        Low and high of each comparison; NaN for fewer than `FEWEST_SEEDS` seeds, where the statistic is, and where they would leave the
        statistic out: of values that all but one seed share, nearly every resample has one and the same statistic, or none.
    """
    estimate = statistic(np.ones((1, seeds)))[0]
    if seeds < FEWEST_SEEDS:
        return np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    drawn = np.sort(statistic(draws.counts(seeds)), axis=0)  # NaN last
    there = np.isfinite(drawn).sum(axis=0)
    without = statistic(1 - np.eye(seeds))
    influence = without.mean(axis=0) - without
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = (influence**3).sum(axis=0) / (6 * (influence**2).sum(axis=0) ** 1.5)
        near = ROUND_OFF * np.maximum(1, abs(estimate))
        below = (
            ((drawn < estimate - near).sum(axis=0) + (drawn <= estimate + near).sum(axis=0))
            / 2
            / there
        )
    acceleration = np.nan_to_num(acceleration, nan=0.0, posinf=0.0, neginf=0.0)
    bias = stats.norm.ppf(np.clip(below, 1 / (len(drawn) + 1), 1 - 1 / (len(drawn) + 1)))
    reach = math.sqrt(seeds / (seeds - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)
    ends = []
    for normal in (-reach, reach):
        share = stats.norm.cdf(
            bias + (bias + normal) / np.maximum(1 - acceleration * (bias + normal), ROUND_OFF)
        )
        place = np.clip(share * (there - 1), 0, np.maximum(there - 1, 0))
        under = np.floor(np.nan_to_num(place)).astype(int)
        over = np.minimum(under + 1, np.maximum(there - 1, 0))
        low, high = (np.take_along_axis(drawn, one[None], axis=0)[0] for one in (under, over))
        ends.append(
            np.where(
                np.isfinite(estimate) & (there > 0), low + (place - under) * (high - low), np.nan
            )
        )
    held = (ends[0] <= estimate + near) & (estimate - near <= ends[1])
    return np.where(held, ends[0], np.nan), np.where(held, ends[1], np.nan)


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval (95 %) of means over seeds.

    Args:
        values: shape ``(…, seed)``.

    Returns:
        Low and high, shape ``(…)``; NaN for fewer than two seeds.
    """
    seeds = values.shape[-1]
    if seeds < 2:
        return np.full(values.shape[:-1], np.nan), np.full(values.shape[:-1], np.nan)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * stats.sem(values, axis=-1)
    return values.mean(axis=-1) - reach, values.mean(axis=-1) + reach


def interval(values: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray, str]:
    """The interval (95 %) of means over seeds, and its method: BCa, of few seeds Student's t.

    Args:
        values: shape ``(…, seed)``.
        draws: of seeds.

    Returns:
        Low and high, shape ``(…)``, and the method's name, empty where there is no interval.
    """
    seeds = values.shape[-1]
    if seeds < FEWEST_SEEDS:
        return *t_interval(values), STUDENT if seeds > 1 else ""
    low, high = bca(of_each(values), seeds, draws)
    return low.reshape(values.shape[:-1]), high.reshape(values.shape[:-1]), BCA


def permutation_test(pairs: np.ndarray, draws: Draws) -> np.ndarray:
    """Two-sided p of the mean over matched pairs, among the means over permuted pairs.

    Args:
        pairs: what seed i of one series and seed j of another have in common, shape ``(…, i, j)``.
        draws: of permutations.

    Returns:
        Shape ``(…)``; NaN where a pair is.
    """
    seeds = pairs.shape[-1]
    centred = pairs - pairs.mean(axis=(-2, -1), keepdims=True)
    return extreme(matching(seeds, draws) @ centred.reshape(-1, seeds**2).T).reshape(
        pairs.shape[:-2]
    )


def matching(seeds: int, draws: Draws) -> np.ndarray:
    """What takes the mean over the matched pairs of each permutation, the first as they are: shape ``(draw, seed · seed)``."""
    orders = draws.permutations(seeds)
    chosen = np.zeros((len(orders), seeds, seeds))
    chosen[np.arange(len(orders))[:, None], np.arange(seeds), orders] = 1 / seeds
    return chosen.reshape(len(orders), -1)


def extreme(drawn: np.ndarray) -> np.ndarray:
    """Share of draws at least as far from 0 as the first, which is the observed one: shape ``(draw, …)`` → ``(…)``; NaN where that is."""
    sizes = np.abs(drawn)
    return np.where(np.isfinite(drawn[0]), (sizes >= sizes[0] - ROUND_OFF).mean(axis=0), np.nan)
