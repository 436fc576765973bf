"""Can a measure rank checkpoints by the error to come, and does curvature add to simpler measures?

Checkpoints at the start of a task are compared within a setting and a task, across arms and seeds,
so that no trend over tasks can help. Baselines are left out: a new network has a high rank and no
gap, so a measure that recognizes new networks would seem to know the error to come.

All numbers are functions of sums over pairs of checkpoints, which are kept per pair of seeds. A
resample of seeds then only weighs these sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.quantities import split_operator
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.null_models import (
    MIN_SEEDS,
    deviations,
    error_inflation,
    standardized_ranks,
)
from plasticity.statistics.resampling import (
    BCA,
    CONFIDENCE,
    MIN_BOOTSTRAP_SEEDS,
    UNEVEN,
    Draws,
    Statistic,
    bca,
    interval,
)
from plasticity.statistics.setting_arrays import MIN_PROBLEMS, MIN_TASKS, SettingArrays, problems_of

ARM = "none"  # the arm in which ranks are compared with each other
SIMPLE_MEASURES = ("weight_norm", "feature_rank", "dead_fraction")  # curvature must add to these
MIN_CHECKPOINTS = 4  # in a task
COLUMNS = [
    "setting",
    "outcome",
    "measure",
    "statistic",
    "estimate",
    "low",
    "high",
    "problems",
    "seeds",
    "tasks",
    "interval",
    "note",
]
REDUNDANCY_COLUMNS = [
    "setting",
    "first",
    "second",
    "association",
    "estimate",
    "low",
    "high",
    "seeds",
    "tasks",
    "interval",
    "note",
]


@dataclass(frozen=True)
class PairSums:
    """Sums over tasks and pairs of checkpoints, per pair of their seeds, shapes ``(seed, seed)``.

    A sign is that of the difference between the two checkpoints; it is 0 for a tie.

    Attributes:
        agreement: sum of sign(score) · sign(outcome).
        score_pairs: sum of sign(score)², the number of pairs with different scores.
        outcome_pairs: sum of sign(outcome)², the number of pairs with different outcomes.
        tasks: number of tasks.
    """

    agreement: np.ndarray
    score_pairs: np.ndarray
    outcome_pairs: np.ndarray
    tasks: int

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.agreement)

    def tau(self, counts: np.ndarray) -> np.ndarray:
        """Compute Kendall's τ-b over the pairs of all tasks, shape ``(draw,)``."""
        agreement = _weigh(self.agreement, counts)
        score_pairs = _weigh(self.score_pairs, counts)
        outcome_pairs = _weigh(self.outcome_pairs, counts)
        product = score_pairs * outcome_pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(product > 0, agreement / np.sqrt(product), np.nan)

    def auc(self, counts: np.ndarray) -> np.ndarray:
        """Compute the probability that the checkpoint with the larger outcome has the larger score.

        A tie of scores counts one half. Shape ``(draw,)``.
        """
        agreement = _weigh(self.agreement, counts)
        outcome_pairs = _weigh(self.outcome_pairs, counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(outcome_pairs > 0, (1 + agreement / outcome_pairs) / 2, np.nan)


def _weigh(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Add up the sums of all pairs of seeds in each resample.

    Args:
        sums: shape ``(seed, seed)``.
        counts: shape ``(draw, seed)``.

    Returns:
        Shape ``(draw,)``.
    """
    return np.asarray(((counts @ sums) * counts).sum(axis=-1))


@dataclass(frozen=True)
class Checkpoints:
    """The complete runs of a setting, at the tasks where all of some measures were taken.

    Attributes:
        scores: measures, shape ``(measure, task, run)``.
        outcomes: shape ``(outcome, task, run)``.
        seeds: index of each run's seed among the seeds that occur.
    """

    scores: np.ndarray
    outcomes: np.ndarray
    seeds: np.ndarray

    @property
    def seed_count(self) -> int:
        """Number of seeds."""
        return int(self.seeds.max()) + 1


def select_checkpoints(arrays: SettingArrays, measures: Sequence[str]) -> Checkpoints | None:
    """Select the checkpoints that have all of some measures.

    Args:
        arrays: of a setting, with one variant per measure.
        measures: their names.

    Returns:
        None if the setting lacks a measure, or has too few seeds, tasks or runs.
    """
    indices = {variant.measure: index for index, variant in enumerate(arrays.variants)}
    if not set(measures) <= set(indices):
        return None
    values = arrays.measures[[indices[name] for name in measures]]
    tasks = np.isfinite(values).any(axis=(1, 2)).all(axis=0)
    has_measures = np.isfinite(values[..., tasks]).all(axis=(0, 3))
    has_outcomes = np.isfinite(arrays.outcomes).all(axis=(0, 3))
    arms, seeds = np.nonzero(has_measures & has_outcomes)
    distinct_seeds, seed_indices = np.unique(seeds, return_inverse=True)
    if tasks.sum() < MIN_TASKS or len(distinct_seeds) < 2 or len(arms) < MIN_CHECKPOINTS:
        return None
    return Checkpoints(
        scores=values[:, arms, seeds][..., tasks].transpose(0, 2, 1),
        outcomes=arrays.outcomes[:, arms, seeds][..., tasks].transpose(0, 2, 1),
        seeds=seed_indices,
    )


def pair_sums(
    scores: np.ndarray, outcome_signs: np.ndarray, seeds: np.ndarray
) -> Iterator[PairSums]:
    """Compute the sums of one score with each outcome.

    Args:
        scores: shape ``(task, run)``.
        outcome_signs: from `difference_signs`, shape ``(outcome, task, run, run)``, int8.
        seeds: index of each run's seed.
    """
    is_of_seed = (seeds[:, None] == np.arange(seeds.max() + 1)).astype(np.float64)

    def per_seed(sums: np.ndarray) -> np.ndarray:
        return np.asarray(is_of_seed.T @ sums @ is_of_seed)

    score_signs = difference_signs(scores)
    score_pairs = per_seed(_sum_products(score_signs, score_signs))
    for signs in outcome_signs:
        yield PairSums(
            agreement=per_seed(_sum_products(score_signs, signs)),
            score_pairs=score_pairs,
            outcome_pairs=per_seed(_sum_products(signs, signs)),
            tasks=len(scores),
        )


def _sum_products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum products of signs over tasks.

    Eight bits hold the sum of 127 products. Summing in int8 is several times as fast as in float64.

    Args:
        first: shape ``(task, run, run)``, int8.
        second: shape ``(task, run, run)``, int8.

    Returns:
        Shape ``(run, run)``, float64.
    """
    total = np.zeros(first.shape[1:])
    for start in range(0, len(first), 127):
        stop = start + 127
        partial = np.zeros(first.shape[1:], np.int8)
        for a, b in zip(first[start:stop], second[start:stop], strict=True):
            partial += a * b
        total += partial
    return total


def difference_signs(values: np.ndarray) -> np.ndarray:
    """Compute the signs of all differences along the last axis.

    Args:
        values: shape ``(…, run)``.

    Returns:
        Shape ``(…, run, run)``, int8.
    """
    small_integer = np.min_scalar_type(values.shape[-1])
    ranks = stats.rankdata(values, axis=-1, method="dense").astype(small_integer)
    is_greater = ranks[..., :, None] > ranks[..., None, :]
    is_less = ranks[..., :, None] < ranks[..., None, :]
    return np.asarray(is_greater.view(np.int8) - is_less.view(np.int8))


@dataclass(frozen=True)
class SettingKinds:
    """What groups settings in means over them.

    Attributes:
        fates: whether plasticity is ``lost`` or ``kept``, by the name of the setting.
        problems: from `problems_of`.
    """

    fates: Mapping[str, str]
    problems: Mapping[str, str]


def prediction(
    settings: Sequence[SettingArrays], draws: Draws, fates: Mapping[str, str], primary: str
) -> pd.DataFrame:
    """Rank checkpoints by every explanation, and compute what curvature adds to simpler measures.

    Args:
        settings: arrays of all settings.
        draws: of seeds.
        fates: whether plasticity is ``lost`` or ``kept`` in a setting, by its name. Where nothing
            is lost, there is little to predict.
        primary: the rank that stands for an operator in nested models.

    Returns:
        One row per setting, outcome, measure and statistic, with intervals over seeds. The settings
        `all`, `all: lost` and `all: kept` are means over the settings of a problem and then over
        problems, with intervals over problems.
        `kendall_tau` and `auc` have the sign of the measure. `auc_left_out` takes the direction
        from the other settings. Nested models are least squares on ranks within a task, fitted in
        the other settings: `auc_left_out` of `SIMPLE_MEASURES` alone and together with an operator,
        and the difference `added`.
    """
    explanations = [arrays.without_baselines().explanations() for arrays in settings]
    kinds = SettingKinds(fates, problems_of(settings))
    rows = [
        *_single_measures(explanations, draws, kinds),
        *_nested_models(explanations, draws, kinds, primary),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _single_measures(
    settings: Sequence[SettingArrays], draws: Draws, kinds: SettingKinds
) -> Iterator[Row]:
    """Rank checkpoints by one measure at a time."""
    for (outcome, measure), sums_by_setting in _sums_by_measure(settings).items():
        values: dict[str, dict[str, float]] = {}
        directions = _left_out_directions(sums_by_setting)
        for setting, sums in sums_by_setting.items():
            direction = directions[setting]
            only_setting = "one setting" if direction is None else "constant"
            estimates = {
                "kendall_tau": _resample(sums.tau, sums.seeds, draws, "constant"),
                "auc": _resample(sums.auc, sums.seeds, draws, "constant"),
                "auc_left_out": _resample(
                    _directed_auc(sums, direction), sums.seeds, draws, only_setting
                ),
            }
            for statistic, estimate in estimates.items():
                values.setdefault(statistic, {})[setting] = float(estimate.value)
                yield {
                    "setting": setting,
                    "outcome": outcome,
                    "measure": measure,
                    "statistic": statistic,
                    **estimate.row(),
                    "seeds": sums.seeds,
                    "tasks": sums.tasks,
                }
        for statistic, by_setting in values.items():
            keys: Row = {"outcome": outcome, "measure": measure, "statistic": statistic}
            rows = _means_over_settings(keys, by_setting, kinds)
            if statistic == "auc_left_out" and len(set(directions.values())) > 1:
                # A setting against the others then counts against the measure, and the interval
                # would exclude the AUC of an unrelated measure far too often.
                rows = map(_without_interval, rows)
            yield from rows


def _without_interval(row: Row) -> Row:
    """Remove the interval of a mean over settings; its note keeps the number of settings."""
    *_, settings = str(row["note"]).split("; ")
    note = join_notes("the direction depends on the left-out setting", settings)
    return row | {"low": np.nan, "high": np.nan, "interval": "", "note": note}


def _means_over_settings(
    keys: Row, by_setting: Mapping[str, float], kinds: SettingKinds
) -> Iterator[Row]:
    """Average a statistic over all settings, and over those that lose or keep plasticity."""
    for fate in ("", "lost", "kept"):
        chosen = {
            name: value
            for name, value in by_setting.items()
            if not fate or kinds.fates[name] == fate
        }
        if chosen:
            name = f"all: {fate}" if fate else "all"
            yield {"setting": name, **keys, **_mean_over_settings(chosen, kinds.problems)}


def _sums_by_measure(
    settings: Sequence[SettingArrays],
) -> dict[tuple[str, str], dict[str, PairSums]]:
    """Compute the sums of every outcome and measure, by the name of the setting."""
    sums_by_measure: dict[tuple[str, str], dict[str, PairSums]] = {}
    for arrays in settings:
        # Measures with the same runs and tasks share the signs of outcomes.
        last_key: tuple[bytes, bytes] | None = None
        outcome_signs = np.empty(0)
        for variant in arrays.variants:
            checkpoints = select_checkpoints(arrays, [variant.measure])
            if checkpoints is None:
                continue
            key = (checkpoints.outcomes.tobytes(), checkpoints.seeds.tobytes())
            if key != last_key:
                last_key = key
                outcome_signs = difference_signs(checkpoints.outcomes)
            all_sums = pair_sums(checkpoints.scores[0], outcome_signs, checkpoints.seeds)
            for outcome, sums in zip(arrays.outcome_names, all_sums, strict=True):
                by_setting = sums_by_measure.setdefault((outcome, variant.measure), {})
                by_setting[arrays.setting] = sums
    return sums_by_measure


def _left_out_directions(sums_by_setting: Mapping[str, PairSums]) -> dict[str, float | None]:
    """Find the sign of the association in the other settings; None without other settings."""
    excess = {}
    for setting, sums in sums_by_setting.items():
        excess[setting] = float(sums.auc(np.ones((1, sums.seeds)))[0]) - 0.5
    directions: dict[str, float | None] = {}
    for setting in sums_by_setting:
        others = [value for name, value in excess.items() if name != setting and np.isfinite(value)]
        directions[setting] = float(np.sign(sum(others))) if others else None
    return directions


def _directed_auc(sums: PairSums, direction: float | None) -> Statistic:
    """Express the AUC in a given direction as a statistic; it is NaN without a direction."""
    sign = np.nan if direction is None else direction

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 + sign * (sums.auc(counts) - 0.5))

    return statistic


def _resample(statistic: Statistic, seeds: int, draws: Draws, missing_note: str) -> Estimate:
    """Estimate a statistic with its interval over seeds.

    Args:
        statistic: from counts to one value per draw, shape ``(draw,)``.
        seeds: number of seeds.
        draws: of seeds.
        missing_note: the note if there is no estimate.
    """

    def column(counts: np.ndarray) -> np.ndarray:
        return statistic(counts)[:, None]

    value = statistic(np.ones((1, seeds)))[0]
    low, high = bca(column, seeds, draws)
    has_interval = bool(np.isfinite(low[0]))
    if np.isnan(value):
        note = missing_note
    elif seeds < MIN_BOOTSTRAP_SEEDS:
        note = "too few seeds for an interval"
    else:
        note = "" if has_interval else UNEVEN
    method = BCA if has_interval else ""
    return Estimate(float(value), float(low[0]), float(high[0]), method, note=note)


def _mean_over_settings(by_setting: Mapping[str, float], problems: Mapping[str, str]) -> Row:
    """Average over the settings of each problem, and then over problems.

    Args:
        by_setting: a statistic, by the name of the setting; settings without it do not count.
        problems: of each setting.

    Returns:
        The mean, Student's t interval for problems like these, and the number of problems.
    """
    known: dict[str, list[float]] = {}
    for setting, value in by_setting.items():
        if np.isfinite(value):
            known.setdefault(problems[setting], []).append(value)
    of_problems = np.array([np.mean(values) for values in known.values()])
    count: Row = {"problems": len(of_problems)}
    note = f"of {sum(map(len, known.values()))} settings"
    mean = of_problems.mean() if len(of_problems) else np.nan
    if len(of_problems) < MIN_PROBLEMS:
        estimate = Estimate(mean, note=join_notes("too few problems", note))
        return estimate.row() | count
    error = max(stats.sem(of_problems), 1e-12)
    low, high = stats.t.interval(CONFIDENCE, len(of_problems) - 1, mean, error)
    return Estimate(mean, low, high, "Student's t over problems", note=note).row() | count


@dataclass(frozen=True)
class RankedCheckpoints:
    """The checkpoints of a setting, with ranks of measures as features of a linear model.

    Attributes:
        outcome_names: names of the outcomes.
        checkpoints: of the setting.
        features: ranks within a task, shape ``(measure, task, run)``.
    """

    outcome_names: Sequence[str]
    checkpoints: Checkpoints
    features: np.ndarray


def _nested_models(
    settings: Sequence[SettingArrays], draws: Draws, kinds: SettingKinds, primary: str
) -> Iterator[Row]:
    """Compare the simple measures alone with the simple measures and one operator.

    Both use the tasks at which all of these measures were taken. Weights are fitted in all settings
    but one and evaluated in the remaining one.
    """
    for operator in _operators(settings, primary):
        names = [*SIMPLE_MEASURES, operator]
        ranked = {}
        for arrays in settings:
            checkpoints = select_checkpoints(arrays, names)
            if checkpoints is not None:
                features = _centred_ranks(checkpoints.scores)
                ranked[arrays.setting] = RankedCheckpoints(
                    arrays.outcome_names, checkpoints, features
                )
        if len(ranked) >= 2:
            yield from _nested_models_of_operator(ranked, names, draws, kinds)


def _operators(settings: Sequence[SettingArrays], primary: str) -> list[str]:
    """List the measures that represent operators in any setting: their rank of this name."""
    measures = set()
    for arrays in settings:
        measures |= {variant.measure for variant in arrays.variants}
    return sorted(name for name in measures if split_operator(name)[1] == primary)


def _nested_models_of_operator(
    ranked: Mapping[str, RankedCheckpoints],
    names: Sequence[str],
    draws: Draws,
    kinds: SettingKinds,
) -> Iterator[Row]:
    """Build the rows of one operator.

    Args:
        ranked: checkpoints by the name of the setting, at least two settings.
        names: of the simple measures and the operator.
        draws: of seeds.
        kinds: of the settings.
    """
    simple_name = " + ".join(SIMPLE_MEASURES)
    full_name = " + ".join(names)
    simple_features = slice(0, len(SIMPLE_MEASURES))
    added: dict[str, dict[str, float]] = {}
    for setting, left_out in ranked.items():
        checkpoints = left_out.checkpoints
        seeds = checkpoints.seed_count
        outcome_signs = difference_signs(checkpoints.outcomes)
        for o, outcome in enumerate(left_out.outcome_names):
            others = [
                other
                for name, other in ranked.items()
                if name != setting and outcome in other.outcome_names
            ]
            if not others:
                continue  # only this setting has the outcome
            keys: Row = {
                "setting": setting,
                "outcome": outcome,
                "seeds": seeds,
                "tasks": len(checkpoints.scores[0]),
            }
            signs = outcome_signs[o : o + 1]
            simple = _left_out_sums(left_out, others, simple_features, outcome, signs)
            full = _left_out_sums(left_out, others, slice(None), outcome, signs)
            for measure, sums in ((simple_name, simple), (full_name, full)):
                auc = _resample(sums.auc, seeds, draws, "constant")
                yield {**keys, "measure": measure, "statistic": "auc_left_out", **auc.row()}
            gain = _resample(_auc_difference(full, simple), seeds, draws, "constant")
            added.setdefault(outcome, {})[setting] = float(gain.value)
            yield {**keys, "measure": full_name, "statistic": "added", **gain.row()}
    for outcome, by_setting in added.items():
        summary: Row = {"outcome": outcome, "measure": full_name, "statistic": "added"}
        yield from _means_over_settings(summary, by_setting, kinds)


def _left_out_sums(
    left_out: RankedCheckpoints,
    others: Sequence[RankedCheckpoints],
    features: slice,
    outcome: str,
    outcome_signs: np.ndarray,
) -> PairSums:
    """Fit weights in other settings, and compute the sums of the resulting score.

    Args:
        left_out: checkpoints of the setting that is left out of the fit.
        others: checkpoints of the other settings that have the outcome.
        features: which features to use.
        outcome: its name.
        outcome_signs: of this outcome in the left-out setting, shape ``(1, task, run, run)``.
    """
    gram, products = np.zeros(()), np.zeros(())
    for other in others:
        used = other.features[features]
        x = used.reshape(len(used), -1)
        o = other.outcome_names.index(outcome)
        y = _centred_ranks(other.checkpoints.outcomes[o]).ravel()
        gram = gram + x @ x.T / y.size
        products = products + x @ y / y.size
    weights = np.linalg.lstsq(gram, products, rcond=1e-9)[0]
    score = np.tensordot(weights, left_out.features[features], axes=1)
    return next(pair_sums(score, outcome_signs, left_out.checkpoints.seeds))


def _auc_difference(full: PairSums, simple: PairSums) -> Statistic:
    """Express the difference of two AUCs as a statistic."""

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.asarray(full.auc(counts) - simple.auc(counts))

    return statistic


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Rank the checkpoints of a task, scaled from −1 to 1; 0 where all are equal.

    Args:
        values: shape ``(…, run)``.
    """
    runs = values.shape[-1]
    return np.asarray((2 * stats.rankdata(values, axis=-1) - runs - 1) / (runs - 1))


def redundancy(settings: Sequence[SettingArrays], draws: Draws, primary: str) -> pd.DataFrame:
    """Correlate the ranks of operators and the feature rank with each other, within runs.

    Args:
        settings: arrays of all settings; only the arm `none` is used.
        draws: of seeds.
        primary: the rank that stands for an operator.

    Returns:
        One row per setting, pair of ranks and association: Spearman's correlation over the tasks at
        which both were measured, mean over seeds, with an interval. The association is `task` for
        deviations from the mean curve and `within_run` for the series themselves.
    """
    rows: list[Row] = []
    for arrays in settings:
        if ARM in arrays.arms:
            rows += list(_redundancy_rows(arrays.explanations(), draws, primary))
    return pd.DataFrame(rows, columns=REDUNDANCY_COLUMNS)


def _redundancy_rows(arrays: SettingArrays, draws: Draws, primary: str) -> Iterator[Row]:
    """Build the rows of one setting."""
    arm = arrays.arms.index(ARM)
    has_outcomes = np.isfinite(arrays.outcomes[:, arm]).all(axis=(0, 2))
    ranks = {}
    for index, variant in enumerate(arrays.variants):
        is_of_operator = split_operator(variant.measure)[1] == primary
        if is_of_operator or variant.measure == "feature_rank":
            ranks[variant.measure] = arrays.measures[index, arm][has_outcomes]
    for first in ranks:
        for second in ranks:
            if first >= second:
                continue
            x, y = _complete_pair(ranks[first], ranks[second])
            seeds, tasks = x.shape
            for association in ("within_run", "task"):
                yield {
                    "setting": arrays.setting,
                    "first": first,
                    "second": second,
                    "association": association,
                    **_redundancy(x, y, association, draws).row(),
                    "seeds": seeds,
                    "tasks": tasks,
                }


def _complete_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the tasks at which both were measured, and the seeds without gaps at these tasks.

    Args:
        x: shape ``(seed, task)``.
        y: shape ``(seed, task)``.
    """
    tasks = (np.isfinite(x) & np.isfinite(y)).any(axis=0)
    x, y = x[:, tasks], y[:, tasks]
    is_complete = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    return x[is_complete], y[is_complete]


def _redundancy(x: np.ndarray, y: np.ndarray, association: str, draws: Draws) -> Estimate:
    """Correlate two ranks within runs, mean over seeds.

    Args:
        x: shape ``(seed, task)``.
        y: shape ``(seed, task)``.
        association: `within_run`, or `task` for deviations from the mean curve.
        draws: of seeds.
    """
    seeds, tasks = x.shape
    is_of_deviations = association == "task"
    if tasks < MIN_TASKS or seeds < (MIN_SEEDS if is_of_deviations else 1):
        return Estimate(note="too few")
    if is_of_deviations:
        x, y = deviations(x), deviations(y)
    inflation = error_inflation(seeds) if is_of_deviations else 1.0
    per_seed = (standardized_ranks(x) * standardized_ranks(y)).sum(axis=-1)
    low, high, method = interval(per_seed, draws)
    mean = per_seed.mean()
    estimate = Estimate(
        value=mean,
        low=mean - inflation * (mean - low),
        high=mean + inflation * (high - mean),
        method=method if np.isfinite(low) else "",
    )
    if np.isnan(mean):
        return replace(estimate, note="constant")
    return replace(estimate, note="" if method else "too few seeds for an interval")
