"""Do the settings in which a measure changes more also lose more plasticity?

Each setting is one point: the change of the measure from the first trained network to late tasks,
and the growth of the gap to the baseline, both without an intervention. So no trend over tasks can
make two unrelated measures agree. Settings are the unit of resamples and permutations. The result
holds for settings like these, so they should be drawn from a declared distribution, as in
`studies/drawn.yaml`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from plasticity.config.quantities import describe
from plasticity.statistics.associations import correlation_over_seeds
from plasticity.statistics.changes import first_and_late, growth_of_gap
from plasticity.statistics.estimate import Estimate, Row
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.null_models import standardized_ranks
from plasticity.statistics.resampling import (
    MIN_BOOTSTRAP_SEEDS,
    UNEVEN,
    Draws,
    Statistic,
    bca,
    permutation_test,
)
from plasticity.statistics.setting_arrays import SettingArrays

MIN_SETTINGS = MIN_BOOTSTRAP_SEEDS  # for a correlation over settings
COLUMNS = [
    "measure",
    "versus",
    "statistic",
    "estimate",
    "low",
    "high",
    "p",
    "settings",
    "interval",
    "note",
]
Point = tuple[float, float]


def population(settings: Sequence[SettingArrays], draws: Draws, primary: str) -> pd.DataFrame:
    """Correlate the change of every explanation with the change of the gap, over settings.

    Args:
        settings: arrays of all settings; only the arm `none` is used.
        draws: of settings.
        primary: the measure that stands for curvature.

    Returns:
        One row per measure with Spearman's correlation, `spearman`: its interval is over resampled
        settings, and ``p`` is that of permuted settings. A row with ``versus`` has the difference
        of the sizes of two correlations, `size_of_spearman`, over the settings that have both
        measures: of this measure and of the one that stands for curvature.
    """
    points: dict[str, dict[str, Point]] = {}
    for arrays in settings:
        if EXPLAINED_ARM in arrays.arms:
            for measure, point in changes(arrays).items():
                points.setdefault(measure, {})[arrays.setting] = point
    rows: list[Row] = []
    for measure, of_measure in points.items():
        correlation = correlate(np.array(list(of_measure.values())), draws)
        rows.append(
            {
                "measure": measure,
                "versus": "",
                "statistic": "spearman",
                **correlation.row(),
                "settings": len(of_measure),
            }
        )
        if measure != primary and primary in points:
            triples = _common_settings(of_measure, points[primary])
            rows.append(
                {
                    "measure": measure,
                    "versus": primary,
                    "statistic": "size_of_spearman",
                    **compare_sizes(triples, draws).row(),
                    "settings": len(triples),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def changes(arrays: SettingArrays) -> dict[str, Point]:
    """Compute the changes of every explanation and of the gap since the first task.

    The change of a share is a difference, and that of other measures a logarithm of the ratio. Both
    are of means over runs, so that one run with a rank of 0 does not decide.

    Args:
        arrays: of a setting with the arm `none`.

    Returns:
        ``(change of the measure, change of the gap)`` by the name of the measure. Measures without
        a change are left out: not taken early and late, of both signs, or without a complete run.
    """
    arm = arrays.arms.index(EXPLAINED_ARM)
    gaps = arrays.gaps(arm)
    tasks = gaps.shape[1]
    points = {}
    for series in arrays.explanations().complete_series(arm):
        if not len(series.seeds):
            continue
        growth = float(growth_of_gap(gaps[series.seeds]).mean())
        for variant, values in zip(series.variants, series.x, strict=True):
            first, late = first_and_late(values, series.tasks, tasks)
            change = _change(variant.measure, float(first.mean()), float(late.mean()))
            if not np.isnan(change):
                points[variant.measure] = (change, growth)
    return points


def _change(measure: str, before: float, after: float) -> float:
    """Compute a difference of shares, or a logarithm of a ratio; −∞ if it falls to 0."""
    if describe(measure).is_share:
        return after - before
    if before < 0 and after < 0:
        before, after = -after, -before
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.log(after) - np.log(before))


def _common_settings(first: Mapping[str, Point], second: Mapping[str, Point]) -> np.ndarray:
    """Collect the changes of two measures and of the first one's gap, shape ``(setting, 3)``."""
    triples = [
        (change, second[setting][0], loss)
        for setting, (change, loss) in first.items()
        if setting in second
    ]
    return np.array(triples).reshape(-1, 3)


def correlate(points: np.ndarray, draws: Draws) -> Estimate:
    """Compute Spearman's correlation over settings, with its interval and test.

    Args:
        points: changes of the measure and of the gap, shape ``(setting, 2)``.
        draws: of settings.
    """
    settings = len(points)
    if settings < MIN_SETTINGS:
        return Estimate(note="too few settings")
    x, y = points.T
    estimate = _resample(correlation_over_seeds(x[None], y[None], rank=True), settings, draws)
    pairs = standardized_ranks(x)[:, None] * standardized_ranks(y)
    p = float(permutation_test(pairs, draws))
    return Estimate(
        estimate.value, estimate.low, estimate.high, estimate.method, p, note=estimate.note
    )


def compare_sizes(triples: np.ndarray, draws: Draws) -> Estimate:
    """Subtract the sizes of two correlations with the gap, with an interval.

    Args:
        triples: changes of two measures and of the gap, shape ``(setting, 3)``.
        draws: of settings.
    """
    settings = len(triples)
    if settings < MIN_SETTINGS:
        return Estimate(note="too few settings")
    correlations = correlation_over_seeds(triples.T[:2], triples.T[2:], rank=True)

    def difference(counts: np.ndarray) -> np.ndarray:
        sizes = abs(correlations(counts))
        return np.asarray(sizes[:, :1] - sizes[:, 1:])

    return _resample(difference, settings, draws)


def _resample(statistic: Statistic, settings: int, draws: Draws) -> Estimate:
    """Estimate a number in [−1, 1] with its interval over resampled settings."""
    value = float(statistic(np.ones((1, settings)))[0, 0])
    if np.isnan(value):
        return Estimate(note="constant")
    low, high = bca(statistic, settings, draws)
    if np.isnan(low[0]):
        return Estimate(value, note=UNEVEN)
    return Estimate(
        float(np.clip(value, -1, 1)),
        float(np.clip(low[0], -1, 1)),
        float(np.clip(high[0], -1, 1)),
        "BCa over settings",
    )
