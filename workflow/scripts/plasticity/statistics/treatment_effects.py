"""What each treatment does to the copies: changes to `none`, and where a measure fails.

A treatment that restores plasticity but not the measure shows that the measure is not necessary. A
treatment that restores the measure but not plasticity shows that it is not sufficient.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plasticity.config.models import UNTREATED
from plasticity.config.quantities import describe
from plasticity.statistics.changes import compute_change
from plasticity.statistics.resampling import Draws
from plasticity.statistics.treated_arrays import (
    SeedMeans,
    TreatedArrays,
    average_over_seeds,
)

TREATMENT_COLUMNS = [
    "setting",
    "arm",
    "task",
    "treatment",
    "treatment_family",
    "strength",
    "quantity",
    "block",
    "mean",
    "change",
    "change_low",
    "change_high",
    "seeds",
    "interval",
    "note",
]
COUNTEREXAMPLE_COLUMNS = [
    "setting",
    "arm",
    "task",
    "treatment",
    "treatment_family",
    "strength",
    "measure",
    "block",
    "outcome",
    "kind",
    "outcome_change",
    "outcome_change_low",
    "outcome_change_high",
    "measure_change",
    "measure_change_low",
    "measure_change_high",
    "seeds",
    "interval",
    "note",
]
NOT_NECESSARY, NOT_SUFFICIENT = "not_necessary", "not_sufficient"
BOTH, NEITHER, UNCLEAR = "both", "neither", "unclear"


def treatments(settings: Sequence[TreatedArrays], draws: Draws) -> pd.DataFrame:
    """Average every outcome and measure of every treatment over seeds.

    Args:
        settings: copies of the settings that have interventions.
        draws: of seeds.

    Returns:
        One row per setting, arm, task, treatment and quantity: the ``mean`` over seeds, and the
        ``change``, which is the mean difference to `none`, with its interval. Seeds whose copy, or
        whose copy without a treatment, was not trained are left out.
    """
    tables = []
    for arrays in settings:
        quantities = [*arrays.outcomes, *arrays.other_outcomes, *arrays.measures]
        blocks = [""] * (len(quantities) - len(arrays.measures)) + arrays.blocks
        others = [values[None] for values in arrays.other_outcomes.values()]
        values = np.concatenate([arrays.y, *others, arrays.x])
        differences = values - values[..., [arrays.reference]]
        known = np.where(np.isfinite(differences), values, np.nan)
        axes = (1, 3, 4, 0, 2)  # (arm, task, copy, quantity, seed)
        means = average_over_seeds(known.transpose(axes), draws)
        changes = average_over_seeds(differences.transpose(axes), draws)
        index = row_index(arrays, quantities)
        table = copy_columns(arrays, index)
        table["quantity"] = np.array(quantities, object)[index[3]]
        table["block"] = np.array(blocks, object)[index[3]]
        table["mean"] = means.value.ravel()
        table["change"] = changes.value.ravel()
        table["change_low"] = changes.low.ravel()
        table["change_high"] = changes.high.ravel()
        table["seeds"] = changes.seeds.ravel()
        table["interval"] = changes.method.ravel()
        table["note"] = copy_notes(arrays, changes, index)
        tables.append(table)
    return join_tables(tables, TREATMENT_COLUMNS)


def find_intervention_counterexamples(
    settings: Sequence[TreatedArrays], draws: Draws, lost: float, moved: float
) -> pd.DataFrame:
    """Compare what each treatment does to an outcome and to every measure that has a claim.

    Args:
        settings: copies of the settings that have interventions.
        draws: of seeds.
        lost: plasticity is restored if the outcome falls by more than this, compared with `none`,
            and not restored if it falls by less. The whole interval must lie on one side.
        moved: a measure is restored if it moves by more than this against the sign that it has when
            plasticity is lost, and not restored if it moves by less. Changes of shares are
            absolute. Others are relative to the larger of the two.

    Returns:
        One row per setting, arm, task, treatment, measure and outcome. The ``kind`` is
        `not_necessary` (plasticity is restored, the measure is not), `not_sufficient` (the
        reverse), `both`, `neither`, or `unclear`. ``outcome_change`` is the outcome minus that of
        `none`. ``measure_change`` is positive where the measure is restored. Counterexamples come
        first.
    """
    tables = []
    for arrays in settings:
        claimed = [m for m, name in enumerate(arrays.measures) if describe(name).claimed_sign]
        if not (claimed and arrays.outcomes):
            continue
        table = _counterexamples_of_setting(arrays, claimed, draws, lost, moved)
        tables.append(table[table["treatment"] != UNTREATED])
    table = join_tables(tables, COUNTEREXAMPLE_COLUMNS)
    is_against = table["kind"].isin([NOT_NECESSARY, NOT_SUFFICIENT])
    order = np.argsort(~is_against.to_numpy(dtype=bool), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _counterexamples_of_setting(
    arrays: TreatedArrays, claimed: Sequence[int], draws: Draws, lost: float, moved: float
) -> pd.DataFrame:
    """Build the rows of one setting.

    Args:
        arrays: of the setting.
        claimed: indices of the measures that have a claim.
        draws: of seeds.
        lost: see `find_intervention_counterexamples`.
        moved: see `find_intervention_counterexamples`.
    """
    y_changes = arrays.y - arrays.y[..., [arrays.reference]]
    x_changes = []
    for measure in claimed:
        values = arrays.x[measure]
        change = compute_change(arrays.measures[measure], values[..., [arrays.reference]], values)
        x_changes.append(-describe(arrays.measures[measure]).claimed_sign * change)
    x = np.stack(x_changes)[:, None]
    y = y_changes[None]
    is_known = np.isfinite(x) & np.isfinite(y)
    axes = (2, 4, 5, 0, 1, 3)  # (arm, task, copy, measure, outcome, seed)
    of_measure = average_over_seeds(np.where(is_known, x, np.nan).transpose(axes), draws)
    of_outcome = average_over_seeds(np.where(is_known, y, np.nan).transpose(axes), draws)
    index = row_index(arrays, claimed, arrays.outcomes)
    measures = np.array(claimed)[index[3]]
    table = copy_columns(arrays, index)
    table["measure"] = np.array(arrays.measures, object)[measures]
    table["block"] = np.array(arrays.blocks, object)[measures]
    table["outcome"] = np.array(arrays.outcomes, object)[index[4]]
    table["kind"] = _kinds(of_outcome, of_measure, lost, moved).ravel()
    for name, means in (("outcome", of_outcome), ("measure", of_measure)):
        table[f"{name}_change"] = means.value.ravel()
        table[f"{name}_change_low"] = means.low.ravel()
        table[f"{name}_change_high"] = means.high.ravel()
    table["seeds"] = of_outcome.seeds.ravel()
    table["interval"] = of_outcome.method.ravel()
    table["note"] = copy_notes(arrays, of_outcome, index)
    return table


def _kinds(of_outcome: SeedMeans, of_measure: SeedMeans, lost: float, moved: float) -> np.ndarray:
    """Judge treatments by intervals, see `find_intervention_counterexamples`."""
    is_restored = of_outcome.high < -lost
    is_not_restored = of_outcome.low > -lost
    has_moved = of_measure.low > moved
    has_not_moved = of_measure.high < moved
    return np.select(
        [
            is_restored & has_not_moved,
            is_not_restored & has_moved,
            is_restored & has_moved,
            is_not_restored & has_not_moved,
        ],
        [NOT_NECESSARY, NOT_SUFFICIENT, BOTH, NEITHER],
        UNCLEAR,
    ).astype(object)


def row_index(arrays: TreatedArrays, *more: Sequence[object]) -> list[np.ndarray]:
    """List the indices of all rows along arm, task, copy and further axes, one array per axis."""
    sizes = (len(arrays.arms), len(arrays.tasks), len(arrays.copies), *map(len, more))
    return [axis.ravel() for axis in np.indices(sizes)]


def copy_columns(arrays: TreatedArrays, index: Sequence[np.ndarray]) -> pd.DataFrame:
    """Build the columns that identify a copy.

    Args:
        arrays: of a setting.
        index: of each row along arm, task and copy.
    """
    arm, task, copy = index[:3]
    return pd.DataFrame(
        {
            "setting": arrays.setting,
            "arm": np.array(arrays.arms, object)[arm],
            "task": np.array([str(number) for number in arrays.tasks], object)[task],
            "treatment": np.array(arrays.copies, object)[copy],
            "treatment_family": np.array(arrays.families, object)[copy],
            "strength": arrays.strengths[copy],
        }
    )


def copy_notes(arrays: TreatedArrays, means: SeedMeans, index: Sequence[np.ndarray]) -> np.ndarray:
    """State for each row how many copies are left out and why.

    Args:
        arrays: of a setting.
        means: over the seeds of a row.
        index: of each row along arm, task and copy.
    """
    words = np.empty(arrays.statuses.shape[:1] + arrays.statuses.shape[2:], object)
    for arm, task, copy in np.ndindex(words.shape):
        statuses, counts = np.unique(arrays.statuses[arm, :, task, copy], return_counts=True)
        words[arm, task, copy] = "; ".join(
            f"{count} {status.replace('_', ' ')}"
            for status, count in zip(statuses, counts, strict=True)
            if status != "trained"
        )
    of_copies = words[tuple(index[:3])]
    few = (means.method.ravel() == "") & (means.seeds.ravel() > 0)
    separator = np.where(few & (of_copies != ""), "; ", "")
    return np.asarray(of_copies + separator + np.where(few, "too few seeds for an interval", ""))


def join_tables(tables: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Join the tables of settings; without one, the table has columns and no rows."""
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]
