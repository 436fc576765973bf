"""Is a correlation within runs more than a shared trend? Four nulls, from the one that assumes most to the one that assumes least.

Two series that drift correlate, whatever joins them; a test over tasks as if they were independent, or over seeds of such correlations,
finds "evidence" in every study of unrelated series (docs/statistics.md has the rates). What all seeds of an arm share is the mean curve
over seeds, so every null here but the last works on the deviations from it. Those of n seeds add up to zero, which makes the n
correlations of deviations correlate by 1/(n−1)²; the standard error of their mean is √((n−1)/(n−2)) times what independent ones would have.
"""

import math

import numpy as np
from scipy import stats

from plasticity.statistics.resampling import Draws, extreme, interval, permutation_test

NULLS = ("task", "shifted", "differenced", "mismatched")
MEANINGS = {
    "task": "the curve over tasks that all seeds of the arm share",
    "shifted": "innovations of a seed, circularly shifted against each other",
    "differenced": "innovations: the shared curve and each seed's slow drift taken out",
    "mismatched": "the measure of one seed paired with the outcome of another",
}
FEWEST = 4  # seeds: fewer have too few mismatched pairs


def standardised(values: np.ndarray) -> np.ndarray:
    """Centred and of unit norm along the last axis, so that a sum of products is Pearson's correlation; NaN where constant."""
    centred = values - values.mean(axis=-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    constant = norms <= 1e-12 * (1 + abs(values).max(axis=-1, keepdims=True))
    return np.asarray(centred / np.where(constant, np.nan, norms))


def ranked(values: np.ndarray) -> np.ndarray:
    """Mean ranks along the last axis, standardised: a sum of products is Spearman's correlation."""
    return standardised(stats.rankdata(values, axis=-1))


def deviations(values: np.ndarray) -> np.ndarray:
    """From the mean curve over seeds, shape ``(…, seed, task)``: the task's index taken out as a factor, whatever the curve's shape."""
    return np.asarray(values - values.mean(axis=-2, keepdims=True))


def innovations(values: np.ndarray) -> np.ndarray:
    """First differences of the deviations, shape ``(…, seed, task − 1)``."""
    return np.diff(deviations(values), axis=-1)


def matched(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of standardised series of the same seed.

    Args:
        x: shape ``(measure, seed, task)``.
        y: shape ``(outcome, seed, task)``.

    Returns:
        Shape ``(measure, outcome, seed)``.
    """
    return np.asarray(np.einsum("mst,ost->mos", x, y, optimize=False))


def crossed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Those of all pairs of seeds: shape ``(measure, outcome, seed of the measure, seed of the outcome)``."""
    return np.asarray(np.tensordot(x, y, axes=(-1, -1)).transpose(0, 2, 1, 3))


def dependent(seeds: int) -> float:
    """By how much the standard error of a mean over seeds of correlations of deviations exceeds that of independent ones."""
    return math.sqrt((seeds - 1) / (seeds - 2))


def nulls(x: np.ndarray, y: np.ndarray, draws: Draws) -> dict[str, dict[str, np.ndarray | str]]:
    """What is left of each correlation beside each null.

    `task` and `differenced`: mean over seeds of Spearman's correlation of deviations, and of innovations; a t test over seeds. `shifted`:
    that of innovations, each seed's shifted at random. `mismatched`: mean correlation of matched pairs less that of mismatched ones; seeds
    permuted.

    Args:
        x: measures, shape ``(measure, seed, task)``, no gaps; at least `FEWEST` seeds.
        y: outcomes, shape ``(outcome, seed, task)``.
        draws: of seeds.

    Returns:
        For each null ``estimate, low, high, p``, each of shape ``(measure, outcome)``, and the name of the ``interval``; NaN where
        constant.
    """
    seeds, tasks = x.shape[1:]
    deviating = matched(ranked(deviations(x)), ranked(deviations(y)))
    moves, responses = ranked(innovations(x)), ranked(innovations(y))
    moving = matched(moves, responses)
    pairs = crossed(ranked(x), ranked(y))
    own = np.diagonal(pairs, axis1=-2, axis2=-1)
    excess = own - (pairs.sum(axis=-1) + pairs.sum(axis=-2) - 2 * own) / (2 * (seeds - 1))
    p = {
        "task": _t_test(deviating),
        "shifted": _shifted(moves, responses, draws.shifts(seeds, tasks - 1)),
        "differenced": _t_test(moving),
        "mismatched": permutation_test(pairs, draws),
    }
    found: dict[str, dict[str, np.ndarray | str]] = {}
    for name, per_seed in {
        "task": deviating,
        "shifted": moving,
        "differenced": moving,
        "mismatched": excess,
    }.items():
        estimate, (low, high, how) = per_seed.mean(axis=-1), interval(per_seed, draws)
        wider = dependent(seeds)
        found[name] = {
            "estimate": estimate,
            "low": np.maximum(
                estimate - wider * (estimate - low), -1 if name != "mismatched" else -2
            ),
            "high": np.minimum(
                estimate + wider * (high - estimate), 1 if name != "mismatched" else 2
            ),
            "p": p[name],
            "interval": how,
        }
    return found


def _t_test(per_seed: np.ndarray) -> np.ndarray:
    """Two-sided p of their mean, by Student's t over seeds that are dependent as correlations of deviations are."""
    seeds = per_seed.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        t = per_seed.mean(axis=-1) / (stats.sem(per_seed, axis=-1) * dependent(seeds))
    return np.asarray(2 * stats.t.sf(abs(t), seeds - 1))


def _shifted(x: np.ndarray, y: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Two-sided p of the mean correlation, among those of series that are circularly shifted against each other, seed by seed.

    Args:
        x: standardised, shape ``(measure, seed, task)``.
        y: standardised, shape ``(outcome, seed, task)``.
        shifts: shape ``(draw, seed)``, those of the first draw 0.
    """
    seeds, tasks = x.shape[1:]
    products = np.fft.rfft(x)[:, None] * np.conj(np.fft.rfft(y))
    shifted = np.fft.irfft(products, tasks).reshape(-1, seeds * tasks)
    chosen = np.zeros((len(shifts), seeds, tasks))
    chosen[np.arange(len(shifts))[:, None], np.arange(seeds), shifts] = 1 / seeds
    chosen[0] /= dependent(seeds)
    return extreme(chosen.reshape(len(shifts), -1) @ shifted.T).reshape(len(x), len(y))
