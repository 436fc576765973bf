"""Associations of every measure with every outcome, at four levels that are never mixed.

A measure is taken at the start of a task. Its outcome is that of the same task. The levels:

- `within_run`: correlation over the tasks of a run, mean over seeds.
- `between_runs`: correlation over the seeds of an arm, of means over tasks.
- `between_arms`: correlation over the arms of a setting, of means over seeds and tasks.
- `pooled`: slope of a mixed model of all runs of a setting, with a fixed effect for every arm and
  task, and with random intercepts and slopes per run.

Correlations within runs are also compared with null models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.statistics import mixed_model, reliability
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.null_models import (
    MIN_SEEDS,
    NULL_MODELS,
    compare_with_null_models,
    deviations,
    error_inflation,
    matched_correlations,
    standardize,
    standardized_ranks,
)
from plasticity.statistics.resampling import (
    BCA,
    MIN_BOOTSTRAP_SEEDS,
    ROUND_OFF,
    TAILS,
    UNEVEN,
    Draws,
    Statistic,
    bca,
    interval,
    permutation_test,
)
from plasticity.statistics.setting_arrays import (
    MIN_TASKS,
    CompleteSeries,
    SettingArrays,
    Variant,
    incomplete_note,
    mask_indices,
)

COLUMNS = [
    "setting",
    "level",
    "arm",
    "outcome",
    "measure",
    "evaluation_point",
    "block",
    "estimate",
    "low",
    "high",
    *reliability.COLUMNS,
    "pearson",
    "pearson_low",
    "pearson_high",
    "p",
    "power",
    "seeds",
    "tasks",
    "interval",
    "note",
]
NULL_COLUMNS = [
    "setting",
    "arm",
    "outcome",
    "measure",
    "evaluation_point",
    "block",
    "null_model",
    "estimate",
    "low",
    "high",
    *reliability.COLUMNS,
    "p",
    "power",
    "seeds",
    "tasks",
    "interval",
    "note",
]
MIN_ARMS = 4  # a correlation over fewer arms is too uncertain to report
Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Correlations:
    """Correlations of all pairs of a measure and an outcome, shapes ``(measure, outcome)``.

    Attributes:
        spearman: or another main estimate; its p and its method hold for the row.
        pearson: NaN if it was not computed.
    """

    spearman: Estimate
    pearson: Estimate = field(default_factory=Estimate)


def associations(
    settings: Sequence[SettingArrays], draws: Draws, relevant: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the associations at every level, and those within runs under every null model.

    Args:
        settings: arrays of all settings.
        draws: of seeds.
        relevant: correlation whose power is computed.

    Returns:
        Two tables. The first has one row per level, arm (where the level has one), outcome and
        measure; within runs it has one row per variant of a measure. ``estimate`` is Spearman's
        correlation, at the pooled level the slope in standard deviations. ``pearson`` is Pearson's
        correlation. Both have intervals over seeds. Within runs, ``p`` is that of mismatched seeds,
        and ``power`` is that of this test. Other levels have no power and no reliability.
        The second table has the estimates under each of `null_models.NULL_MODELS`.
    """
    rows: list[Row] = []
    null_rows: list[Row] = []
    for arrays in settings:
        explanations = arrays.explanations()
        names = arrays.outcome_names
        for arm, arm_name in enumerate(arrays.arms):
            keys: Row = {"setting": arrays.setting, "arm": arm_name}
            for series in arrays.complete_series(arm):
                comparisons = _null_comparisons(series, draws, relevant)
                rows += [
                    {**keys, "level": "within_run", **row}
                    for row in _within_runs(series, names, comparisons, draws)
                ]
                null_rows += [
                    {**keys, **row} for row in _null_model_rows(series, names, comparisons)
                ]
            for series in explanations.complete_series(arm):
                rows += [
                    {**keys, "level": "between_runs", **row}
                    for row in _between_runs(series, names, draws)
                ]
        no_arm: Row = {"setting": arrays.setting, "arm": ""}
        continuing = explanations.without_baselines()
        rows += [
            {**no_arm, "level": "between_arms", **row} for row in _between_arms(continuing, draws)
        ]
        rows += [{**no_arm, "level": "pooled", **row} for row in _pooled(continuing)]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(null_rows, columns=NULL_COLUMNS)


def pooled(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Estimate:
    """Fit the mixed model to deviations from the mean curve of each arm.

    Args:
        x: measures of each arm, shapes ``(measure, seed, task)``.
        y: outcomes of each arm, shapes ``(outcome, seed, task)``.

    Returns:
        Slopes in standard deviations of the deviations, shape ``(measure, outcome)``.
    """
    scaled_x = _scaled_deviations(x)
    scaled_y = _scaled_deviations(y)
    fit = mixed_model.fit_slopes(scaled_x, scaled_y)
    freedom = scaled_x.shape[1] - len(x)
    fewest_seeds = min(values.shape[1] for values in x)
    error = fit.error * error_inflation(fewest_seeds)
    reach = stats.t.ppf(TAILS[1], freedom) * error
    return Estimate(
        value=fit.slope,
        low=fit.slope - reach,
        high=fit.slope + reach,
        method="REML, Student's t",
        p=2 * stats.t.sf(abs(fit.slope) / error, freedom),
    )


def _scaled_deviations(arms: Sequence[np.ndarray]) -> np.ndarray:
    """Join the deviations of all arms and scale each series to a standard deviation of 1.

    Args:
        arms: shapes ``(series, seed, task)``.

    Returns:
        Shape ``(series, run, task)``; NaN where a series is constant.
    """
    joined = np.concatenate([deviations(values) for values in arms], axis=1)
    spread = joined.std(axis=(1, 2), keepdims=True)
    return np.asarray(joined / np.where(spread > ROUND_OFF, spread, np.nan))


def _null_comparisons(series: CompleteSeries, draws: Draws, relevant: float) -> dict[str, Estimate]:
    """Compare with the null models; empty if there are too few seeds or tasks."""
    if len(series.seeds) < MIN_SEEDS or len(series.tasks) < MIN_TASKS:
        return {}
    return compare_with_null_models(series.x, series.y, draws, relevant)


def _within_runs(
    series: CompleteSeries,
    outcome_names: Sequence[str],
    comparisons: Mapping[str, Estimate],
    draws: Draws,
) -> Iterator[Row]:
    """Correlate over the tasks of each run and average over seeds."""
    if missing := _missing_runs_note(series):
        yield from _rows(series, outcome_names, None, missing)
        return
    spearman = _mean_correlation(series, standardized_ranks, draws)
    pearson = _mean_correlation(series, standardize, draws)
    if comparisons:
        test = comparisons["mismatched"]
        spearman = replace(spearman, p=test.p, power=test.power)
    note = join_notes(
        series.note,
        "" if comparisons else "too few seeds for a null model",
        "" if spearman.method else "too few seeds for an interval",
    )
    shares = reliability.reliabilities(series)["mismatched"]
    correlations = Correlations(spearman, pearson)
    yield from _rows(series, outcome_names, correlations, note, reliabilities=shares)


def _null_model_rows(
    series: CompleteSeries, outcome_names: Sequence[str], comparisons: Mapping[str, Estimate]
) -> Iterator[Row]:
    """Build the rows of the table of null models."""
    note = _missing_runs_note(series)
    if not note:
        note = join_notes(series.note, "" if comparisons else "too few seeds")
    shares = reliability.reliabilities(series) if comparisons else {}
    for name in NULL_MODELS:
        correlations = Correlations(comparisons[name]) if comparisons else None
        rows = _rows(series, outcome_names, correlations, note, reliabilities=shares.get(name))
        for row in rows:
            yield {"null_model": name, **row}


def _missing_runs_note(series: CompleteSeries) -> str:
    """State why there is no correlation within runs; empty if there is one."""
    if not len(series.seeds):
        return "too few seeds"
    return "too few tasks" if len(series.tasks) < MIN_TASKS else ""


def _mean_correlation(series: CompleteSeries, transform: Transform, draws: Draws) -> Estimate:
    """Average the correlations within runs over seeds, with an interval within [−1, 1]."""
    per_seed = matched_correlations(transform(series.x), transform(series.y))
    low, high, method = interval(per_seed, draws)
    return Estimate(
        value=np.clip(per_seed.mean(axis=-1), -1, 1),
        low=np.clip(low, -1, 1),
        high=np.clip(high, -1, 1),
        method=method,
    )


def _between_runs(
    series: CompleteSeries, outcome_names: Sequence[str], draws: Draws
) -> Iterator[Row]:
    """Correlate means over the measured tasks, over the seeds of an arm."""
    seeds = len(series.seeds)
    if seeds < MIN_BOOTSTRAP_SEEDS:
        note = join_notes(series.note, "too few seeds")
        yield from _rows(series, outcome_names, None, note)
        return
    x = series.x.mean(axis=-1)
    y = series.y.mean(axis=-1)
    shape = (len(x), len(y))
    spearman = _clip(_resample(_correlation_over_seeds(x, y, rank=True), shape, seeds, draws))
    pearson = _clip(_resample(_correlation_over_seeds(x, y, rank=False), shape, seeds, draws))
    p = _permutation_p(standardized_ranks(x), standardized_ranks(y), draws)
    correlations = Correlations(replace(spearman, p=p), pearson)
    yield from _rows(series, outcome_names, correlations, series.note)


def _resample(statistic: Statistic, shape: tuple[int, int], seeds: int, draws: Draws) -> Estimate:
    """Estimate a statistic with its bootstrap interval, shapes ``(measure, outcome)``."""
    value = statistic(np.ones((1, seeds)))[0]
    low, high = bca(statistic, seeds, draws)
    method = BCA if seeds >= MIN_BOOTSTRAP_SEEDS else ""
    return Estimate(value.reshape(shape), low.reshape(shape), high.reshape(shape), method)


def _clip(estimate: Estimate) -> Estimate:
    """Limit a correlation and its interval to [−1, 1]."""
    return replace(
        estimate,
        value=np.clip(estimate.value, -1, 1),
        low=np.clip(estimate.low, -1, 1),
        high=np.clip(estimate.high, -1, 1),
    )


def _permutation_p(x: np.ndarray, y: np.ndarray, draws: Draws) -> np.ndarray:
    """Test correlations by permutations.

    Args:
        x: standardized, shape ``(measure, unit)``.
        y: standardized, shape ``(outcome, unit)``.
        draws: of permutations of units.

    Returns:
        Shape ``(measure, outcome)``.
    """
    return permutation_test(x[:, None, :, None] * y[None, :, None, :], draws)


def _correlation_over_seeds(x: np.ndarray, y: np.ndarray, rank: bool) -> Statistic:
    """Express correlations over seeds as a statistic.

    Args:
        x: shape ``(measure, seed)``.
        y: shape ``(outcome, seed)``.
        rank: whether to correlate mean ranks among the drawn seeds (Spearman), not values
            (Pearson).

    Returns:
        From counts, shape ``(draw, seed)``, to correlations, shape ``(draw, measure · outcome)``.
    """

    def statistic(counts: np.ndarray) -> np.ndarray:
        weighted_x = _weighted_standardized(x, counts, rank)
        weighted_y = _weighted_standardized(y, counts, rank)
        products = np.einsum("mds,ods->dmo", weighted_x, weighted_y, optimize=False)
        return np.asarray(products.reshape(len(counts), -1))

    return statistic


def _weighted_standardized(values: np.ndarray, counts: np.ndarray, rank: bool) -> np.ndarray:
    """Centre each resample and scale it to unit norm, where a seed weighs as often as it was drawn.

    Args:
        values: shape ``(series, seed)``.
        counts: shape ``(draw, seed)``.
        rank: whether to replace values by mean ranks among the drawn seeds.

    Returns:
        Shape ``(series, draw, seed)``; NaN where a resample is constant.
    """
    if rank:
        is_smaller = values[:, :, None] < values[:, None, :]
        is_equal = values[:, :, None] == values[:, None, :]
        values = counts @ (is_smaller + is_equal / 2)
    else:
        values = np.repeat(values[:, None], len(counts), axis=1)
    means = (values * counts).sum(axis=-1) / counts.sum(axis=-1)
    values = values - means[..., None]
    norms = np.sqrt((counts * values**2).sum(axis=-1, keepdims=True))
    is_constant = norms <= 1e-12 * (1 + abs(values).max())
    return np.asarray(values * np.sqrt(counts) / np.where(is_constant, np.nan, norms))


def _between_arms(arrays: SettingArrays, draws: Draws) -> Iterator[Row]:
    """Correlate means over seeds and tasks, over arms.

    Measures are grouped by the arms and tasks that have them. Seeds that diverged in one of the
    arms are left out of all.
    """
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    is_measured = np.isfinite(arrays.measures)
    for index in range(len(is_measured)):
        arms = is_measured[index].any(axis=(1, 2))
        tasks = is_measured[index].any(axis=(0, 1))
        if tasks.any():
            groups.setdefault((arms.tobytes(), tasks.tobytes()), []).append(index)
    for (arm_mask, task_mask), indices in groups.items():
        arms = mask_indices(arm_mask)
        tasks = mask_indices(task_mask)
        series = _series_of_arms(arrays, indices, arms, tasks)
        if len(arms) < MIN_ARMS or not len(series.seeds):
            reason = "too few arms" if len(series.seeds) else "too few seeds"
            note = join_notes(series.note, reason)
            yield from _rows(series, arrays.outcome_names, None, note)
            continue
        correlations = _correlations_over_arms(series, draws)
        has_few_seeds = len(series.seeds) < MIN_BOOTSTRAP_SEEDS
        note = join_notes(series.note, "too few seeds for an interval" if has_few_seeds else "")
        yield from _rows(series, arrays.outcome_names, correlations, note)


def _series_of_arms(
    arrays: SettingArrays, indices: Sequence[int], arms: np.ndarray, tasks: np.ndarray
) -> CompleteSeries:
    """Average over tasks for the seeds that are complete in all arms.

    Args:
        arrays: of a setting.
        indices: of measures.
        arms: indices.
        tasks: indices.

    Returns:
        Series whose last axis is the seed: x has shape ``(measure, arm, seed)``, y has shape
        ``(outcome, arm, seed)``.
    """
    outcomes = arrays.outcomes[:, arms][..., tasks]
    measures = arrays.measures[indices][:, arms]
    is_complete = np.isfinite(outcomes).all(axis=(0, 1, 3))
    is_complete &= np.isfinite(measures[..., tasks]).all(axis=(0, 1, 3))
    return CompleteSeries(
        variants=[arrays.variants[index] for index in indices],
        x=measures[:, :, is_complete][..., tasks].mean(axis=-1),
        y=outcomes[:, :, is_complete].mean(axis=-1),
        seeds=np.flatnonzero(is_complete),
        tasks=tasks,
        runs=len(is_complete),
    )


def _correlations_over_arms(series: CompleteSeries, draws: Draws) -> Correlations:
    """Correlate means over seeds, over arms.

    Args:
        series: from `_series_of_arms`.
        draws: of seeds.
    """
    seeds = len(series.seeds)
    shape = (len(series.x), len(series.y))

    def correlation(transform: Transform) -> Statistic:
        def statistic(counts: np.ndarray) -> np.ndarray:
            x = transform(_weighted_mean(series.x, counts))
            y = transform(_weighted_mean(series.y, counts))
            products = np.einsum("mda,oda->dmo", x, y, optimize=False)
            return np.asarray(products.reshape(len(counts), -1))

        return statistic

    spearman = _resample(correlation(standardized_ranks), shape, seeds, draws)
    pearson = _resample(correlation(standardize), shape, seeds, draws)
    p = _permutation_p(
        standardized_ranks(series.x.mean(axis=-1)),
        standardized_ranks(series.y.mean(axis=-1)),
        draws,
    )
    return Correlations(replace(spearman, p=p), pearson)


def _weighted_mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average over the seeds of each resample.

    Args:
        values: shape ``(series, arm, seed)``.
        counts: shape ``(draw, seed)``.

    Returns:
        Shape ``(series, draw, arm)``.
    """
    sums = np.moveaxis(values @ counts.T, 1, -1)
    return np.asarray(sums / counts.sum(axis=1)[:, None])


def _pooled(arrays: SettingArrays) -> Iterator[Row]:
    """Fit the mixed model to all arms."""
    groups: dict[tuple[Variant, bytes], list[CompleteSeries]] = {}
    for arm in range(len(arrays.arms)):
        for series in arrays.complete_series(arm):
            for index, variant in enumerate(series.variants):
                one_measure = replace(series, variants=[variant], x=series.x[index : index + 1])
                groups.setdefault((variant, series.tasks.tobytes()), []).append(one_measure)
    for arms in groups.values():
        usable = [series for series in arms if len(series.seeds) >= MIN_SEEDS]
        if not usable or len(arms[0].tasks) < MIN_TASKS:
            yield from _rows(arms[0], arrays.outcome_names, None, "too few")
            continue
        slopes = pooled([series.x for series in usable], [series.y for series in usable])
        runs = sum(len(series.seeds) for series in usable)
        note = incomplete_note(sum(series.runs - len(series.seeds) for series in usable))
        yield from _rows(arms[0], arrays.outcome_names, Correlations(slopes), note, runs)


def _rows(
    series: CompleteSeries,
    outcome_names: Sequence[str],
    correlations: Correlations | None,
    note: str,
    runs: int | None = None,
    reliabilities: np.ndarray | None = None,
) -> Iterator[Row]:
    """Build a row for each measure and outcome.

    Args:
        series: from which the correlations come.
        outcome_names: names of the outcomes.
        correlations: None if there are none at all; the note then gives the reason.
        note: for all rows.
        runs: what the column ``seeds`` holds; the number of seeds by default.
        reliabilities: of the measures, shape ``(measure,)``; None if they are unknown.
    """
    for m, variant in enumerate(series.variants):
        share = np.nan if reliabilities is None else float(reliabilities[m])
        for o, outcome in enumerate(outcome_names):
            numbers = _number_columns(correlations, m, o, note, share)
            yield {
                **asdict(variant),
                "outcome": outcome,
                **numbers,
                "seeds": runs or len(series.seeds),
                "tasks": len(series.tasks),
            }


def _number_columns(
    correlations: Correlations | None, m: int, o: int, note: str, share: float
) -> Row:
    """Build the columns with the numbers of measure m and outcome o, and with the note.

    Args:
        correlations: see `_rows`.
        m: index of the measure.
        o: index of the outcome.
        note: for all rows.
        share: reliability of the measure; NaN if it is unknown.
    """
    spearman = correlations.spearman.at(m, o) if correlations else Estimate()
    if correlations is None or np.isnan(spearman.value):
        reason = "constant" if correlations else ""
        spearman = Estimate(note=join_notes(note, reason))
        pearson = Estimate()
    else:
        has_interval = np.isfinite(spearman.low)
        reason = UNEVEN if spearman.method == BCA and np.isnan(spearman.low) else ""
        method = spearman.method if has_interval else ""
        notes = join_notes(note, reason, reliability.note(share))
        spearman = replace(spearman, method=method, note=notes)
        pearson = correlations.pearson.at(m, o)
    return {
        **spearman.row(),
        **reliability.columns(spearman, share),
        "pearson": pearson.value,
        "pearson_low": pearson.low,
        "pearson_high": pearson.high,
    }
