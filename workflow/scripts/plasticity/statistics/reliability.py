"""Reliability: which share of a measure's variance is not the error of its own estimate?

The numbers of an estimated spectrum have a margin of error. Such noise makes correlations smaller
(attenuation). Spearman 1904 divides a correlation by the square root of the reliability to correct
it. Here the errors of tasks count as independent of each other and of the outcome. Errors that the
tasks of a run share change no correlation over tasks. Then the reliability is too low, and the
correction too large.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from plasticity.statistics.estimate import Estimate, Row
from plasticity.statistics.null_models import NULL_MODELS, deviations, innovations
from plasticity.statistics.setting_arrays import CompleteSeries, Variant

RELIABLE = 0.9  # below it, a note says that the measure has an error
MIN_RELIABILITY = 0.3  # below it, a correction would enlarge mostly noise
COLUMNS = ["reliability", "corrected", "corrected_low", "corrected_high"]


def reliabilities(series: CompleteSeries) -> dict[str, np.ndarray]:
    """Compute the reliability of each measure in what each null model correlates.

    Args:
        series: at least two tasks.

    Returns:
        By the name of the null model, shapes ``(measure,)``; 1 for exact measures, NaN for constant
        ones and without seeds. `mismatched` uses the series themselves, as correlations within runs
        do.
    """
    seeds = len(series.seeds)
    if not seeds:
        return dict.fromkeys(NULL_MODELS, np.full(len(series.variants), np.nan))
    noise = _noise(series.variants, series.errors)
    # A deviation from the mean curve of n seeds contains (1 − 1/n) of the variance of the error. A
    # first difference contains two errors.
    noise_of_deviations = noise * (1 - 1 / seeds)
    of_innovations = _share_without(2 * noise_of_deviations, innovations(series.x))
    return {
        "task": _share_without(noise_of_deviations, deviations(series.x)),
        "shifted": of_innovations,
        "differenced": of_innovations,
        "mismatched": _share_without(noise, series.x),
    }


def _noise(variants: Sequence[Variant], errors: Mapping[Variant, np.ndarray]) -> np.ndarray:
    """Average the variance of the error over seeds and tasks, shape ``(measure,)``."""
    return np.array([np.square(errors[v]).mean() if v in errors else 0.0 for v in variants])


def _share_without(noise: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute the share of the variance over tasks that is not noise.

    Args:
        noise: variance of the error, shape ``(measure,)``.
        values: shape ``(measure, seed, task)``.

    Returns:
        Shape ``(measure,)``, from 0 to 1.
    """
    variance = values.var(axis=-1, ddof=1).mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(1 - noise / np.where(variance > 0, variance, np.nan), 0, 1)


def note(reliability: float) -> str:
    """State that a measure has an error; empty if it has none that matters."""
    if reliability < MIN_RELIABILITY:
        return "measured too coarsely"
    return "measured with error" if reliability < RELIABLE else ""


def columns(estimate: Estimate, reliability: float) -> Row:
    """Correct a correlation and its interval for attenuation.

    The interval contains no uncertainty of the reliability.

    Args:
        estimate: a correlation.
        reliability: NaN if it is unknown.

    Returns:
        Those of `COLUMNS`. The corrected correlation is NaN below `MIN_RELIABILITY`.
    """
    if not reliability >= MIN_RELIABILITY:  # also if it is unknown, as of most measures
        known = reliability if np.isfinite(estimate.value) else np.nan
        return dict(zip(COLUMNS, [known, np.nan, np.nan, np.nan], strict=True))
    numbers = np.array([estimate.value, estimate.low, estimate.high], float)
    corrected = np.clip(numbers / np.sqrt(reliability), -1, 1)
    cells = [reliability if np.isfinite(numbers[0]) else np.nan, *corrected.tolist()]
    return dict(zip(COLUMNS, cells, strict=True))
