"""How much of a treatment's effect goes through a measure?

The total effect of a treatment is its outcome minus that of `none`, for the same seed. The indirect
effect is the change of the measure times the slope of the outcome on the measure. The direct effect
is the rest. The slope is that of the other treatments of the same checkpoint, so that a treatment
does not explain itself.

Assumptions, which the data cannot prove:

- The outcome depends on the measure along a straight line, which is the same for all treatments.
- Nothing else that treatments change goes along with the measure and changes the outcome. If it
  does, the slope contains its effect, and the indirect effect is that of both.
- The measure is exact. Noise in it flattens the slope, so the indirect effect is too small.

So a share of 1 is what a mediator would give, and no proof that the measure is one.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.models import UNTREATED
from plasticity.config.quantities import describe
from plasticity.statistics.resampling import TAILS, Draws
from plasticity.statistics.treated_arrays import (
    MIN_COPIES,
    SeedMeans,
    TreatedArrays,
    average_over_seeds,
)
from plasticity.statistics.treatment_effects import copy_columns, copy_notes, join_tables, row_index

OUTCOME = "final_error"
NO_SLOPE = "no slope: the other copies are too few, or their measure is constant"
PARTS = ("total", "direct", "indirect")
COLUMNS = [
    "setting",
    "arm",
    "task",
    "treatment",
    "treatment_family",
    "strength",
    "measure",
    "block",
    "outcome",
    *(f"{part}{end}" for part in (*PARTS, "share") for end in ("", "_low", "_high")),
    "seeds",
    "interval",
    "note",
]


def mediation(settings: Sequence[TreatedArrays], draws: Draws) -> pd.DataFrame:
    """Split the effect of every treatment into a direct effect and one through a measure.

    Args:
        settings: copies of the settings that have interventions.
        draws: of seeds.

    Returns:
        One row per setting, arm, task, treatment with its dose, and measure that has a claim: a
        mediator is an explanation. The outcome is the final error. ``block`` is that of the whole
        network, or of the last layer that has the measure. ``total``, ``direct`` and ``indirect``
        are means over seeds with intervals. ``share`` is the mean indirect effect over
        the mean total effect, with Fieller's interval. It is only given if the interval of the
        total effect excludes 0.
    """
    tables = []
    for all_arrays in settings:
        arrays = _explanations_of_the_error(all_arrays)
        if arrays.measures and arrays.outcomes:
            table = _rows_of_setting(arrays, draws)
            tables.append(table[table["treatment"] != UNTREATED])
    return join_tables(tables, COLUMNS)


def _explanations_of_the_error(arrays: TreatedArrays) -> TreatedArrays:
    """Keep the measures that have a claim, and the final error."""
    measures = [index for index, name in enumerate(arrays.measures) if describe(name).claimed_sign]
    outcomes = [index for index, name in enumerate(arrays.outcomes) if name == OUTCOME]
    return replace(
        arrays,
        measures=[arrays.measures[index] for index in measures],
        blocks=[arrays.blocks[index] for index in measures],
        x=arrays.x[measures],
        outcomes=[OUTCOME for _ in outcomes],
        y=arrays.y[outcomes],
    )


def _rows_of_setting(arrays: TreatedArrays, draws: Draws) -> pd.DataFrame:
    """Build the rows of one setting."""
    reference = [arrays.reference]
    x, y = arrays.x[:, None], arrays.y[None]
    is_known = np.isfinite(x) & np.isfinite(y)
    slopes = slopes_of_others(arrays)
    total = np.where(is_known, y - y[..., reference], np.nan)
    indirect = slopes * (x - x[..., reference])
    total = np.where(np.isfinite(indirect), total, np.nan)
    indirect = np.where(np.isfinite(total), indirect, np.nan)
    axes = (2, 4, 5, 0, 1, 3)  # (arm, task, copy, measure, outcome, seed)
    values = {
        "total": total.transpose(axes),
        "direct": (total - indirect).transpose(axes),
        "indirect": indirect.transpose(axes),
    }
    means = {part: average_over_seeds(values[part], draws) for part in PARTS}
    index = row_index(arrays, arrays.measures, arrays.outcomes)
    table = copy_columns(arrays, index)
    table["measure"] = np.array(arrays.measures, object)[index[3]]
    table["block"] = np.array(arrays.blocks, object)[index[3]]
    table["outcome"] = np.array(arrays.outcomes, object)[index[4]]
    for part, mean in means.items():
        table[part] = mean.value.ravel()
        table[f"{part}_low"] = mean.low.ravel()
        table[f"{part}_high"] = mean.high.ravel()
    share, low, high = shares_mediated(values["indirect"], values["total"], means["total"])
    table["share"] = share.ravel()
    table["share_low"] = low.ravel()
    table["share_high"] = high.ravel()
    table["seeds"] = means["total"].seeds.ravel()
    table["interval"] = means["total"].method.ravel()
    notes = copy_notes(arrays, means["total"], index)
    has_no_slope = (table["seeds"] == 0) & (notes == "")
    table["note"] = np.where(has_no_slope, NO_SLOPE, notes)
    return table


def slopes_of_others(arrays: TreatedArrays) -> np.ndarray:
    """Fit the slope of the outcome on the measure over the other treatments of a checkpoint.

    Least squares with an intercept. All doses of the treatment and `none` are left out.

    Args:
        arrays: of a setting.

    Returns:
        Shape ``(measure, outcome, arm, seed, task, copy)``; NaN if fewer than `MIN_COPIES` copies
        remain, or if the measure is the same in all of them.
    """
    x, y = np.broadcast_arrays(arrays.x[:, None], arrays.y[None])
    is_known = np.isfinite(x) & np.isfinite(y)
    magnitude = abs(np.where(is_known, x, 0)).max(axis=-1, keepdims=True)
    # Centred values keep the sums of squares exact.
    x = np.where(is_known, x - np.nanmean(_with_a_value(x), axis=-1, keepdims=True), 0)
    y = np.where(is_known, y - np.nanmean(_with_a_value(y), axis=-1, keepdims=True), 0)
    treatment = arrays.treatment_of_copy
    is_other = treatment[:, None] != treatment
    is_other[arrays.reference] = False
    # (copy that may count, copy that the slope is for)
    kept = is_other.astype(np.float64)
    count = is_known @ kept
    sum_x, sum_y = x @ kept, y @ kept
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = (x * y) @ kept - sum_x * sum_y / count
        variance = (x * x) @ kept - sum_x**2 / count
        # of a measure that is the same in all other copies
        round_off = 1e-12 * (x * x).max(axis=-1, keepdims=True) + (1e-12 * magnitude) ** 2
        has_slope = (count >= MIN_COPIES) & (variance > round_off)
        return np.asarray(np.where(has_slope, covariance / variance, np.nan))


def _with_a_value(values: np.ndarray) -> np.ndarray:
    """Put a 0 where all copies of a checkpoint are NaN, so that their mean is defined."""
    is_empty = np.isnan(values).all(axis=-1, keepdims=True)
    return np.where(is_empty, 0, values)


def shares_mediated(
    indirect: np.ndarray, total: np.ndarray, mean_total: SeedMeans
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide mean indirect effects by mean total effects, with Fieller's interval (1954).

    The interval has all ratios ρ for which Student's t test over seeds does not reject that the
    mean of indirect − ρ · total is 0. It is bounded if the same test rejects a total effect of 0.

    Args:
        indirect: shape ``(…, seed)``; NaN for seeds without a value.
        total: same shape, NaN for the same seeds.
        mean_total: means over seeds of the total effects.

    Returns:
        Share, low and high, shapes ``(…)``; all are NaN where the interval of the total effect
        contains 0.
    """
    seeds = mean_total.seeds
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {}
        deviations = {}
        for name, values in (("indirect", indirect), ("total", total)):
            means[name] = np.nansum(values, axis=-1) / seeds
            # seeds without a value have no deviation
            deviations[name] = np.nan_to_num(values - means[name][..., None])
        factor = 1 / (seeds * (seeds - 1.0))
        variance_i = factor * (deviations["indirect"] ** 2).sum(axis=-1)
        variance_t = factor * (deviations["total"] ** 2).sum(axis=-1)
        covariance = factor * (deviations["indirect"] * deviations["total"]).sum(axis=-1)
        squared_t = stats.t.ppf(TAILS[1], seeds - 1) ** 2
        # a ρ² − 2 b ρ + c ≤ 0
        a = means["total"] ** 2 - squared_t * variance_t
        b = means["total"] * means["indirect"] - squared_t * covariance
        c = means["indirect"] ** 2 - squared_t * variance_i
        reach = np.sqrt(np.maximum(b**2 - a * c, 0))
        excludes_zero = (mean_total.low > 0) | (mean_total.high < 0)
        is_bounded = excludes_zero & (a > 0)
        share = np.where(excludes_zero, means["indirect"] / means["total"], np.nan)
        low = np.where(is_bounded, (b - reach) / a, np.nan)
        high = np.where(is_bounded, (b + reach) / a, np.nan)
    return np.asarray(share), np.asarray(low), np.asarray(high)
