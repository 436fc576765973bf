"""Null models: is a correlation within runs more than a trend that all runs share?

Two series with a trend correlate even if nothing relates them. A test that takes tasks as
independent therefore rejects in nearly every study of unrelated series, and so does a test over
seeds of such correlations (docs/statistics.md has the rates). All seeds of an arm share the mean
curve over seeds. The null models, from the strongest assumptions to the weakest:

- `task`: correlate deviations from the mean curve.
- `shifted`: correlate innovations, and shift each seed's series circularly.
- `differenced`: correlate innovations, the first differences of the deviations.
- `mismatched`: compare matched seeds with mismatched seeds.

The deviations of n seeds add up to zero, so their n correlations correlate with each other by
1/(n−1)². The standard error of their mean is √((n−1)/(n−2)) times that of independent correlations.
"""

import math
from dataclasses import replace

import numpy as np
from scipy import stats

from plasticity.statistics import power
from plasticity.statistics.estimate import Estimate
from plasticity.statistics.resampling import Draws, interval, permuted_means, two_sided_p

NULL_MODELS = ("task", "shifted", "differenced", "mismatched")
MEANINGS = {
    "task": "the curve over tasks that all seeds of the arm share",
    "shifted": "innovations of a seed, circularly shifted against each other",
    "differenced": "innovations: the shared curve and each seed's slow drift taken out",
    "mismatched": "the measure of one seed paired with the outcome of another",
}
MIN_SEEDS = 4  # fewer seeds have too few mismatched pairs


def standardize(values: np.ndarray) -> np.ndarray:
    """Centre the last axis and scale it to unit norm; NaN where constant.

    A sum of products of two standardized series is Pearson's correlation.
    """
    centred = values - values.mean(axis=-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    is_constant = norms <= 1e-12 * (1 + abs(values).max(axis=-1, keepdims=True))
    return np.asarray(centred / np.where(is_constant, np.nan, norms))


def standardized_ranks(values: np.ndarray) -> np.ndarray:
    """Rank the last axis, with mean ranks for ties, and standardize the ranks.

    A sum of products of two such series is Spearman's correlation.
    """
    return standardize(stats.rankdata(values, axis=-1))


def deviations(values: np.ndarray) -> np.ndarray:
    """Subtract the mean curve over seeds, shape ``(…, seed, task)``."""
    return np.asarray(values - values.mean(axis=-2, keepdims=True))


def innovations(values: np.ndarray) -> np.ndarray:
    """Take first differences of the deviations: ``(…, seed, task)`` → ``(…, seed, task − 1)``."""
    return np.diff(deviations(values), axis=-1)


def matched_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlate standardized series of the same seed.

    Args:
        x: shape ``(measure, seed, task)``.
        y: shape ``(outcome, seed, task)``.

    Returns:
        Shape ``(measure, outcome, seed)``.
    """
    return np.asarray(np.einsum("mst,ost->mos", x, y, optimize=False))


def crossed_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlate standardized series of all pairs of seeds.

    Args:
        x: shape ``(measure, seed, task)``.
        y: shape ``(outcome, seed, task)``.

    Returns:
        Shape ``(measure, outcome, seed of the measure, seed of the outcome)``.
    """
    return np.asarray(np.tensordot(x, y, axes=(-1, -1)).transpose(0, 2, 1, 3))


def error_inflation(seeds: int) -> float:
    """Factor on the standard error of a mean over seeds, because deviations add up to zero."""
    return math.sqrt((seeds - 1) / (seeds - 2))


def compare_with_null_models(
    x: np.ndarray, y: np.ndarray, draws: Draws, relevant: float
) -> dict[str, Estimate]:
    """Estimate what remains of each correlation under each null model.

    Spearman's correlations of deviations (`task`) and of innovations (`differenced`) have a t test
    over seeds. `shifted` compares correlations of innovations with those after random circular
    shifts. `mismatched` is the mean correlation of matched seeds minus that of mismatched seeds,
    tested by permutations of seeds.

    Power is that of a correlation `relevant` in what is particular to each run. `shifted` has the
    power of the t test, which its shifts approximate. In `mismatched`, the curve that all seeds
    share dilutes such a correlation.

    Args:
        x: measures without gaps, shape ``(measure, seed, task)``, with at least `MIN_SEEDS` seeds.
        y: outcomes, shape ``(outcome, seed, task)``.
        draws: of seeds.
        relevant: correlation whose power is computed.

    Returns:
        For each null model estimates of shape ``(measure, outcome)``; NaN where a series is
        constant.
    """
    seeds, tasks = x.shape[1:]
    of_deviations = matched_correlations(
        standardized_ranks(deviations(x)), standardized_ranks(deviations(y))
    )
    x_ranks = standardized_ranks(x)
    y_ranks = standardized_ranks(y)
    x_innovations = standardized_ranks(innovations(x))
    y_innovations = standardized_ranks(innovations(y))
    of_innovations = matched_correlations(x_innovations, y_innovations)
    pairs = crossed_correlations(x_ranks, y_ranks)
    shifts = draws.shifts(seeds, tasks - 1)
    p_shifted = _circular_shift_test(x_innovations, y_innovations, shifts)
    permuted = permuted_means(pairs, draws)
    excess = _excess_of_matched_seeds(pairs)
    estimates = {
        "task": _mean_over_seeds(of_deviations, _t_test(of_deviations), draws),
        "shifted": _mean_over_seeds(of_innovations, p_shifted, draws),
        "differenced": _mean_over_seeds(of_innovations, _t_test(of_innovations), draws),
        "mismatched": _mean_over_seeds(excess, two_sided_p(permuted), draws, bound=2),
    }
    power_of_innovations = _power_of_t_test(of_innovations, relevant)
    # The mean over all pairs, which permutations leave out, contains 1/n of the matched pairs.
    left = (seeds - 1) / seeds
    error = left * error_inflation(seeds) * stats.sem(excess, axis=-1)
    expected = left * _expected_excess(
        _dilution(x_ranks, y_ranks), permuted.std(axis=0), seeds, relevant
    )
    powers = {
        "task": _power_of_t_test(of_deviations, relevant),
        "shifted": power_of_innovations,
        "differenced": power_of_innovations,
        "mismatched": power.of_permutations(expected, permuted, error),
    }
    return {name: replace(estimate, power=powers[name]) for name, estimate in estimates.items()}


def _dilution(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute by which factor the shared curve dilutes a correlation of what is a run's own.

    It is √((1 − a)(1 − b)), where a and b are the mean correlations of the measure and of the
    outcome with themselves in another seed. They are the shares of variance that seeds share.

    Args:
        x: standardized, shape ``(measure, seed, task)``.
        y: standardized, shape ``(outcome, seed, task)``.

    Returns:
        Shape ``(measure, outcome)``, from 0 to 1.
    """
    own_shares = []
    for values in (x, y):
        seeds = values.shape[1]
        squared_sum = (values.sum(axis=1) ** 2).sum(axis=-1)
        shared = (squared_sum - seeds) / (seeds * (seeds - 1))
        own_shares.append(np.clip(1 - shared, 0, 1))
    return np.asarray(np.sqrt(own_shares[0][:, None] * own_shares[1]))


def _power_of_t_test(per_seed: np.ndarray, relevant: float) -> np.ndarray:
    """Compute the power of `_t_test`, shape ``(…)``.

    Args:
        per_seed: shape ``(…, seed)``.
        relevant: correlation that is to be found.
    """
    seeds = per_seed.shape[-1]
    error = stats.sem(per_seed, axis=-1) * error_inflation(seeds)
    expected = _mean_within_runs(relevant, per_seed.var(axis=-1, ddof=1))
    return power.of_t_test(expected, error, seeds - 1)


def _mean_within_runs(relevant: float, variance: np.ndarray) -> np.ndarray:
    """Compute the mean correlation within runs that a correlation of all runs together gives.

    Let ρ relate the deviations of all runs, and let r vary over runs by chance with variance v. The
    correlation within a run is (ρ + c r)/√(1 + 2 ρ c r) with c² = 1 − ρ². To the second order in r
    its mean is ρ − ρ c² v (1 − 3 ρ²/2), which is at least ρ (1 − v). So runs that wander, in which
    v is large, show less of a relation.

    Args:
        relevant: ρ.
        variance: v, shape ``(…)``.
    """
    return np.asarray(relevant * (1 - np.minimum(variance, 1)))


def _expected_excess(
    dilution: np.ndarray, error: np.ndarray, seeds: int, relevant: float
) -> np.ndarray:
    """Compute the expected mean of matched pairs, minus that of mismatched pairs.

    Args:
        dilution: from `_dilution`.
        error: standard deviation of the mean over permutations.
        seeds: number of seeds.
        relevant: correlation in what is particular to each run.

    Returns:
        Shape ``(measure, outcome)``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.nan_to_num(seeds * (error / dilution) ** 2, nan=1.0, posinf=1.0)
    return np.asarray(dilution * _mean_within_runs(relevant, variance))


def _excess_of_matched_seeds(pairs: np.ndarray) -> np.ndarray:
    """Subtract from each seed's own correlation the mean of its mismatched ones.

    Args:
        pairs: shape ``(measure, outcome, seed, seed)``.

    Returns:
        Shape ``(measure, outcome, seed)``.
    """
    seeds = pairs.shape[-1]
    matched = np.diagonal(pairs, axis1=-2, axis2=-1)
    mismatched = pairs.sum(axis=-1) + pairs.sum(axis=-2) - 2 * matched
    return np.asarray(matched - mismatched / (2 * (seeds - 1)))


def _mean_over_seeds(
    per_seed: np.ndarray, p: np.ndarray, draws: Draws, bound: float = 1
) -> Estimate:
    """Average over seeds, with an interval that accounts for the dependence of deviations.

    Args:
        per_seed: shape ``(measure, outcome, seed)``.
        p: p values, shape ``(measure, outcome)``.
        draws: of seeds.
        bound: largest possible magnitude, at which intervals are cut.
    """
    mean = per_seed.mean(axis=-1)
    low, high, method = interval(per_seed, draws)
    inflation = error_inflation(per_seed.shape[-1])
    return Estimate(
        value=mean,
        low=np.maximum(mean - inflation * (mean - low), -bound),
        high=np.minimum(mean + inflation * (high - mean), bound),
        method=method,
        p=p,
    )


def _t_test(per_seed: np.ndarray) -> np.ndarray:
    """Test the mean over seeds of correlations of deviations: two-sided p by Student's t.

    Args:
        per_seed: shape ``(…, seed)``.
    """
    seeds = per_seed.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = stats.sem(per_seed, axis=-1) * error_inflation(seeds)
        t = per_seed.mean(axis=-1) / error
    return np.asarray(2 * stats.t.sf(abs(t), seeds - 1))


def _circular_shift_test(x: np.ndarray, y: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Compare the mean correlation with those of circularly shifted series: two-sided p.

    Args:
        x: standardized, shape ``(measure, seed, task)``.
        y: standardized, shape ``(outcome, seed, task)``.
        shifts: shape ``(draw, seed)``; those of the first draw are 0.

    Returns:
        Shape ``(measure, outcome)``.
    """
    seeds, tasks = x.shape[1:]
    products = np.fft.rfft(x)[:, None] * np.conj(np.fft.rfft(y))
    correlations = np.fft.irfft(products, tasks).reshape(-1, seeds * tasks)
    weights = np.zeros((len(shifts), seeds, tasks))
    weights[np.arange(len(shifts))[:, None], np.arange(seeds), shifts] = 1 / seeds
    weights[0] /= error_inflation(seeds)
    means = weights.reshape(len(shifts), -1) @ correlations.T
    return two_sided_p(means).reshape(len(x), len(y))
