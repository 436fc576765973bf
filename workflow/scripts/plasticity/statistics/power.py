"""Power: with these seeds and this spread, how probably would a test find a relevant effect?

It is the probability of p ≤ 0.05, with the right sign, if the true effect has the size that the
config calls relevant. A test that cannot reach p ≤ 0.05 at all has power 0. Power tells a study
that found nothing from a study that could not have found anything.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from plasticity.statistics.estimate import Numbers
from plasticity.statistics.resampling import SIGNIFICANCE_LEVEL

# A t test with more noncentrality than this surely rejects, and scipy's series would overflow.
MAX_NONCENTRALITY = 30.0


def of_t_test(effect: Numbers, error: Numbers, freedom: Numbers) -> np.ndarray:
    """Compute the power of a two-sided t test from the noncentral t distribution.

    Args:
        effect: that is to be found, positive.
        error: standard error of the estimate.
        freedom: degrees of freedom of the standard error.

    Returns:
        The shape of the arguments; NaN without a standard error.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        noncentrality = np.minimum(np.divide(effect, error), MAX_NONCENTRALITY)
    threshold = stats.t.ppf(1 - SIGNIFICANCE_LEVEL / 2, freedom)
    return np.asarray(stats.nct.sf(threshold, freedom, noncentrality))


def of_sign_flips(effect: float, differences: Sequence[np.ndarray]) -> float:
    """Compute the power of flips of signs, by the t test that they approximate.

    Args:
        effect: that is to be found, positive.
        differences: of each setting, shapes ``(seed,)``.

    Returns:
        0 if even the smallest possible p, 2 / 2ⁿ for n differences, is too large; NaN if a setting
        has one seed.
    """
    counts = np.array([len(of_setting) for of_setting in differences])
    if 2 / 2.0 ** counts.sum() > SIGNIFICANCE_LEVEL:
        return 0.0
    if counts.min() < 2:
        return np.nan
    variances = [of_setting.var(ddof=1) / len(of_setting) for of_setting in differences]
    total = np.sum(variances)
    error = np.sqrt(total) / len(variances)
    # degrees of freedom of a sum of variances (Satterthwaite 1946)
    freedom = (counts - 1).sum()
    if total > 0:
        freedom = total**2 / np.sum(np.square(variances) / (counts - 1))
    return float(of_t_test(effect, error, freedom))


def of_permutations(effect: np.ndarray, drawn: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Compute the power of a permutation test from its null distribution.

    The statistic is taken as normal around the effect. Its spread is that of the null distribution
    or the standard error over seeds, whichever gives the lower power: where runs wander, a relation
    makes the statistic vary more than the null distribution does.

    Args:
        effect: expected value of the statistic, shape ``(…)``.
        drawn: the statistic in each permutation, shape ``(draw, …)``.
        error: standard error of the statistic over seeds, shape ``(…)``.

    Returns:
        Shape ``(…)``; 0 if there are so few permutations that p cannot be small.
    """
    threshold = critical_value(drawn)
    distance = threshold - effect
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = [stats.norm.sf(distance / spread) for spread in (drawn.std(axis=0), error)]
    return np.asarray(np.minimum(*powers))


def critical_value(drawn: np.ndarray) -> np.ndarray:
    """Find the smallest magnitude with p ≤ 0.05; infinity if there are too few draws.

    Args:
        drawn: a statistic in each permutation, shape ``(draw, …)``.

    Returns:
        Shape ``(…)``.
    """
    draws = len(drawn)
    extreme = int(SIGNIFICANCE_LEVEL * draws)
    if not extreme:
        return np.full(drawn.shape[1:], np.inf)
    rank = draws - extreme
    return np.asarray(np.partition(np.abs(drawn), rank, axis=0)[rank])
