"""Which measure orders the copies of a checkpoint by the error to come?

Copies of a checkpoint differ in their treatment only, so nothing drifts between them. A treatment
changes more than one thing. So no single treatment decides between explanations: we look for the
measure that orders all of them.

Kendall's τ-b is computed over the copies of each checkpoint. Its interval is over seeds and holds
for these treatments. Its p value compares it with other assignments of the treatments' outcomes:
whole treatments are exchanged, in all seeds and tasks at once (`permute_treatments`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.quantities import describe
from plasticity.statistics import power
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.meta_analysis import combine_effects_over_settings
from plasticity.statistics.resampling import Draws, two_sided_p
from plasticity.statistics.setting_arrays import MIN_PROBLEMS
from plasticity.statistics.treated_arrays import (
    MIN_COPIES,
    SeedMeans,
    TreatedArrays,
    average_over_seeds,
    by_task_label,
    label_weights,
)

CONSTANT = "constant over treatments"
TOO_FEW_COPIES = f"fewer than {MIN_COPIES} copies"
TAU, DIFFERENCE = "tau", "difference"
HARMFUL = "harmful"  # a family of treatments
TAU_WITHOUT_HARMFUL = "tau_without_harmful"
MAX_TAU = 0.999  # stronger correlations are cut here, because Fisher's z of 1 is infinite
# columns of the setting `all` that `combine_effects_over_settings` computes
COLUMNS_OVER_SETTINGS = [
    "estimate",
    "low",
    "high",
    "p",
    "power",
    "claim",
    "sign_agreement",
    "worst_setting",
    "worst_estimate",
    "i_squared",
    "settings",
    "problems",
    "seeds",
    "interval",
    "note",
]
KEYS_OVER_SETTINGS = ("arm", "task", "measure", "outcome", "statistic", "versus")
MIN_ERROR = 1e-3  # of Fisher's z of a setting, so that no setting has an infinite weight
COLUMNS = [
    "setting",
    "arm",
    "task",
    "measure",
    "block",
    "outcome",
    "statistic",
    "versus",
    "estimate",
    "low",
    "high",
    "p",
    "power",
    "claim",
    "sign_agreement",
    "worst_setting",
    "worst_estimate",
    "i_squared",
    "settings",
    "problems",
    "seeds",
    "treatments",
    "interval",
    "note",
]


@dataclass(frozen=True)
class SettingEffect:
    """A statistic in one setting.

    Attributes:
        row: of the table.
        error: standard error over seeds.
        problem: of the setting.
    """

    row: Row
    error: float
    problem: str


@dataclass(frozen=True)
class Agreements:
    """Kendall's τ-b of all measures and outcomes of an arm, and what their tests need.

    Attributes:
        taus: shape ``(measure, outcome, seed, task)``; NaN where a measure is constant or too few
            copies are comparable.
        null: means over seeds for each permutation of the treatments, shape
            ``(draw, label, measure, outcome)``; the first draw is the observed one.
        copies: number of comparable copies, shape ``(measure, seed, task)``.
    """

    taus: np.ndarray
    null: np.ndarray
    copies: np.ndarray


def interventions(
    settings: Sequence[TreatedArrays],
    problems: Mapping[str, str],
    draws: Draws,
    relevant: float,
    primary: str,
) -> pd.DataFrame:
    """Correlate every measure with every outcome over the copies of a checkpoint.

    Args:
        settings: copies of the settings that have interventions.
        problems: of each setting, see `setting_arrays.problems_of`.
        draws: of seeds and permutations.
        relevant: τ whose power is computed.
        primary: the measure that stands for curvature.

    Returns:
        One row per setting, arm, task, measure, outcome and statistic. The task `all` is the mean
        over tasks, and the setting `all` is the random-effects mean over settings. ``tau`` is
        Kendall's τ-b over copies, mean over seeds. ``tau_without_harmful`` is the same without
        harmful treatments, which may order copies by themselves. ``difference`` is the agreement of
        the measure minus that of the rival in ``versus``, paired by seed. The agreement is the
        claimed sign times τ. ``treatments`` is the number of copies of a checkpoint, where it is
        smallest. ``sign_agreement`` is the share of settings with the claimed sign, or with the
        sign of the majority if there is no claim.
    """
    rows: list[Row] = []
    effects: dict[tuple[str, ...], list[SettingEffect]] = {}
    for arrays in settings:
        for row, error in _rows_of_setting(arrays, draws, relevant, primary):
            rows.append(row)
            if np.isfinite(error):
                key = tuple(str(row[name]) for name in KEYS_OVER_SETTINGS)
                effect = SettingEffect(row, error, problems[arrays.setting])
                effects.setdefault(key, []).append(effect)
    rows += [_over_settings(of_settings, relevant) for of_settings in effects.values()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows_of_setting(
    arrays: TreatedArrays, draws: Draws, relevant: float, primary: str
) -> Iterator[tuple[Row, float]]:
    """Build the rows of a setting, each with the standard error of its estimate over seeds."""
    orders = arrays.orders(draws)
    for arm, arm_name in enumerate(arrays.arms):
        agreements = agreements_of_arm(arrays, arm, orders)
        keys: Row = {"setting": arrays.setting, "arm": arm_name}
        for row, error in _tau_rows(arrays, agreements, draws, relevant):
            yield keys | row, error
        if HARMFUL in arrays.families:
            others = arrays.without_family(HARMFUL)
            without_harmful = agreements_of_arm(others, arm, others.orders(draws))
            for row, error in _tau_rows(others, without_harmful, draws, relevant):
                yield keys | row | {"statistic": TAU_WITHOUT_HARMFUL}, error
        if primary in arrays.measures:
            for row, error in _difference_rows(arrays, arm, agreements, draws, relevant, primary):
                yield keys | row, error


def agreements_of_arm(arrays: TreatedArrays, arm: int, orders: np.ndarray) -> Agreements:
    """Compute τ-b of all measures and outcomes of an arm, for every permutation.

    Args:
        arrays: of a setting.
        arm: its index.
        orders: from `TreatedArrays.orders`.
    """
    measures, outcomes = len(arrays.measures), len(arrays.outcomes)
    seeds, tasks = arrays.seeds, len(arrays.tasks)
    taus = np.full((measures, outcomes, seeds, tasks), np.nan)
    copies = np.zeros((measures, seeds, tasks), int)
    null = np.zeros((len(orders), tasks + 1, measures, outcomes))
    pairs = pair_indices(orders)
    for indices, is_comparable in arrays.comparable_measures(arm):
        x, y = arrays.x[indices, arm], arrays.y[:, arm]
        copies[indices] = is_comparable.sum(axis=-1)
        cells = [
            (seed, task)
            for seed in range(seeds)
            for task in range(tasks)
            if is_comparable[seed, task].sum() >= MIN_COPIES
        ]
        drawn = {}
        of_group = np.full((len(indices), outcomes, seeds, tasks), np.nan)
        for seed, task in cells:
            drawn[seed, task] = permuted_taus(
                x[:, seed, task], y[:, seed, task], is_comparable[seed, task], pairs
            )
            of_group[..., seed, task] = drawn[seed, task][0]
        weights = label_weights(of_group)
        for (seed, task), values in drawn.items():
            # A constant measure has no τ in any draw, and no weight.
            known = np.nan_to_num(values)
            for label in range(tasks + 1):
                weight = weights[label, ..., seed, task]
                if weight.any():
                    null[:, label, indices] += weight * known
        taus[indices] = of_group
    return Agreements(taus, null, copies)


def pair_indices(orders: np.ndarray) -> np.ndarray:
    """Find each pair of copies, after a permutation, in a flattened matrix of all pairs.

    Args:
        orders: for each copy, the copy that takes its place, shape ``(draw, copy)``.

    Returns:
        Shape ``(draw, pair)``.
    """
    copies = orders.shape[1]
    first, second = np.triu_indices(copies, 1)
    return np.asarray(orders[:, first] * copies + orders[:, second])


def permuted_taus(
    x: np.ndarray, y: np.ndarray, is_comparable: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """Compute Kendall's τ-b between measures and permuted outcomes of the copies of a checkpoint.

    Kendall 1945: the sum of sign(Δx)·sign(Δy) over pairs of copies, divided by the root of the
    number of pairs with different x times that of pairs with different y. The signs of all pairs
    are integers, so that one matrix product in single precision is exact.

    Args:
        x: measures, shape ``(measure, copy)``.
        y: outcomes, shape ``(outcome, copy)``.
        is_comparable: copies that have all of these, shape ``(copy,)``. In a permutation, a pair
            counts if both copies and both that take their place are comparable.
        pairs: from `pair_indices`, shape ``(draw, pair)``.

    Returns:
        Shape ``(draw, measure, outcome)``; NaN where a measure or an outcome is constant.
    """
    copies = len(is_comparable)
    upper = np.triu_indices(copies, 1)
    is_pair = is_comparable[:, None] & is_comparable
    x_signs = (_signs(x) * is_pair)[:, *upper].astype(np.float32)
    y_signs = (_signs(y) * is_pair).reshape(len(y), -1).astype(np.float32)
    x_untied = np.abs(x_signs).sum(axis=1, dtype=np.float64)
    if not is_comparable.all():
        moved_pairs = is_pair.ravel().astype(np.float32).take(pairs)
        x_untied = moved_pairs @ np.abs(x_signs).T
    taus = np.empty((len(pairs), len(x), len(y)))
    for outcome, signs in enumerate(y_signs):
        moved = signs.take(pairs)
        y_untied = np.abs(moved) @ is_pair[upper].astype(np.float32)
        product = x_untied * y_untied[:, None].astype(np.float64)
        agreement = (moved @ x_signs.T).astype(np.float64)
        taus[..., outcome] = agreement / np.sqrt(np.where(product > 0, product, np.nan))
    return taus


def _signs(values: np.ndarray) -> np.ndarray:
    """Compute the signs of all differences of copies; 0 where a value is missing.

    Args:
        values: shape ``(…, copy)``.

    Returns:
        Shape ``(…, copy, copy)``.
    """
    is_greater = values[..., :, None] > values[..., None, :]
    is_less = values[..., :, None] < values[..., None, :]
    return np.asarray(is_greater.astype(np.int8) - is_less.astype(np.int8))


def _tau_rows(
    arrays: TreatedArrays, agreements: Agreements, draws: Draws, relevant: float
) -> Iterator[tuple[Row, float]]:
    """Build the rows ``tau`` of an arm, with standard errors."""
    means = average_over_seeds(by_task_label(agreements.taus), draws)
    p = two_sided_p(np.where(np.isfinite(means.value), agreements.null, np.nan))
    powers = power_of_null(agreements.null, relevant)
    for label, task in enumerate(arrays.task_labels):
        for m, measure in enumerate(arrays.measures):
            for o, outcome in enumerate(arrays.outcomes):
                index = (label, m, o)
                note = note_of_label(arrays, agreements.taus[m, o], agreements.copies[m], label)
                estimate = estimate_at(means, index, p, powers, note)
                row: Row = {
                    "task": task,
                    "measure": measure,
                    "block": arrays.blocks[m],
                    "outcome": outcome,
                    "statistic": TAU,
                    "versus": "",
                    "claim": describe(measure).claimed_sign,
                    "seeds": int(means.seeds[index]),
                    "treatments": fewest_copies(agreements.copies[m], agreements.taus[m, o], label),
                }
                yield row | estimate.row(), float(means.error[index])


def _difference_rows(
    arrays: TreatedArrays,
    arm: int,
    agreements: Agreements,
    draws: Draws,
    relevant: float,
    primary: str,
) -> Iterator[tuple[Row, float]]:
    """Build the rows ``difference`` of an arm, with standard errors.

    The test flips the sign of each treatment's contribution, see `contributions`. Its power is that
    of a difference of `relevant`.
    """
    signs = np.array([describe(measure).claimed_sign for measure in arrays.measures])
    rivals = [m for m, name in enumerate(arrays.measures) if name != primary and signs[m]]
    own = arrays.measures.index(primary)
    flips = draws.signs(len(arrays.treatments))
    for rival in rivals:
        differences = signs[own] * agreements.taus[own] - signs[rival] * agreements.taus[rival]
        means = average_over_seeds(by_task_label(differences), draws)
        of_treatments = contributions(arrays, arm, own, rival, differences)
        null = np.einsum("dt,lot->dlo", flips, of_treatments, optimize=True)
        p = two_sided_p(np.where(np.isfinite(means.value), null, np.nan))
        powers = power_of_null(null, relevant)
        copies = np.minimum(agreements.copies[own], agreements.copies[rival])
        for label, task in enumerate(arrays.task_labels):
            for o, outcome in enumerate(arrays.outcomes):
                index = (label, o)
                note = note_of_label(arrays, differences[o], copies, label)
                row: Row = {
                    "task": task,
                    "measure": primary,
                    "block": arrays.blocks[own],
                    "outcome": outcome,
                    "statistic": DIFFERENCE,
                    "versus": arrays.measures[rival],
                    "claim": 1,
                    "seeds": int(means.seeds[index]),
                    "treatments": fewest_copies(copies, differences[o], label),
                }
                estimate = estimate_at(means, index, p, powers, note)
                yield row | estimate.row(), float(means.error[index])


def contributions(
    arrays: TreatedArrays, arm: int, own: int, rival: int, differences: np.ndarray
) -> np.ndarray:
    """Split the difference of two agreements into what each treatment contributes.

    If two measures order copies equally well, their ranks a and b can be exchanged in any
    treatments. Let T be the difference of two sums over pairs of copies,
    Σ sign(aᵢ − aⱼ)·sign(yᵢ − yⱼ) − Σ sign(bᵢ − bⱼ)·sign(yᵢ − yⱼ), and let w be −1 where ranks are
    exchanged and 1 elsewhere. Then T = Σ wᵢ qᵢ, with qᵢ = ½ Σⱼ (B + C)·sign(yᵢ − yⱼ),
    B = sign(aᵢ − aⱼ) − sign(bᵢ − bⱼ) and C = sign(aᵢ − bⱼ) − sign(bᵢ − aⱼ). So an exchange flips
    the signs of what treatments contribute to T. Each sum is divided by the denominator of its τ-b.

    Args:
        arrays: of a setting.
        arm: index of the arm.
        own: index of the measure.
        rival: index of the measure that it is compared with.
        differences: of the agreements, shape ``(outcome, seed, task)``.

    Returns:
        Shape ``(label, outcome, treatment)``. The sum over treatments is the mean difference.
    """
    weights = label_weights(differences)
    outcomes, seeds, tasks = differences.shape
    of_copies = np.zeros((tasks + 1, outcomes, len(arrays.copies)))
    for seed in range(seeds):
        for task in range(tasks):
            weight = weights[..., seed, task]
            if not weight.any():
                continue
            y = arrays.y[:, arm, seed, task]
            y = np.where(np.isfinite(y).all(axis=0), y, np.nan)
            a = oriented_ranks(arrays, own, y, (arm, seed, task))
            b = oriented_ranks(arrays, rival, y, (arm, seed, task))
            of_cell = _contributions_of_copies(a, b, _signs(y).astype(np.float64))
            of_copies += weight[..., None] * np.nan_to_num(of_cell)
    is_of_treatment = np.eye(len(arrays.treatments))[arrays.treatment_of_copy]
    return np.asarray(of_copies @ is_of_treatment)


def oriented_ranks(
    arrays: TreatedArrays, measure: int, y: np.ndarray, cell: tuple[int, int, int]
) -> np.ndarray:
    """Rank the copies of a checkpoint by a measure in its claimed direction, around 0.

    Args:
        arrays: of a setting.
        measure: its index.
        y: outcomes, NaN for copies that lack one, shape ``(outcome, copy)``.
        cell: indices of the arm, the seed and the task.

    Returns:
        Shape ``(copy,)``; NaN for copies that lack the measure or an outcome.
    """
    values = np.where(np.isfinite(y[0]), arrays.x[(measure, *cell)], np.nan)
    ranks = stats.rankdata(values, nan_policy="omit")
    centred = ranks - (np.isfinite(values).sum() + 1) / 2
    return np.asarray(describe(arrays.measures[measure]).claimed_sign * centred)


def _contributions_of_copies(a: np.ndarray, b: np.ndarray, y_signs: np.ndarray) -> np.ndarray:
    """Compute the coefficients of `contributions` for the copies of one checkpoint.

    Args:
        a: ranks of the measure, shape ``(copy,)``.
        b: ranks of the rival, shape ``(copy,)``.
        y_signs: of differences of outcomes, shape ``(outcome, copy, copy)``.

    Returns:
        Shape ``(outcome, copy)``.
    """
    a_signs, b_signs = _signs(a), _signs(b)
    a_scale, b_scale = _tau_scale(a_signs, a, y_signs), _tau_scale(b_signs, b, y_signs)
    crossed = np.nan_to_num(np.sign(a[:, None] - b))
    same = a_signs * a_scale - b_signs * b_scale
    mixed = (crossed + crossed.T) * np.sqrt(a_scale * b_scale)
    return np.asarray(0.5 * ((same + mixed) * y_signs).sum(axis=-1))


def _tau_scale(x_signs: np.ndarray, x: np.ndarray, y_signs: np.ndarray) -> np.ndarray:
    """Compute what a sum over pairs is multiplied with in τ-b.

    Args:
        x_signs: of differences of ranks, shape ``(copy, copy)``.
        x: ranks, NaN where a copy is not comparable, shape ``(copy,)``.
        y_signs: of differences of outcomes, shape ``(outcome, copy, copy)``.

    Returns:
        Shape ``(outcome, 1, 1)``.
    """
    known = np.isfinite(x)
    x_untied = np.abs(x_signs).sum() / 2
    y_untied = np.abs(y_signs[:, known][..., known]).sum(axis=(1, 2), keepdims=True) / 2
    product = x_untied * y_untied
    return np.asarray(1 / np.sqrt(np.where(product > 0, product, np.nan)))


def power_of_null(null: np.ndarray, relevant: float) -> np.ndarray:
    """Compute the power for a relevant effect from the null distribution alone.

    The spread over seeds says nothing about other treatments, so it is not used.

    Args:
        null: shape ``(draw, …)``.
        relevant: expected value of the statistic.
    """
    effect = np.full(null.shape[1:], relevant)
    return power.of_permutations(effect, null, null.std(axis=0))


def estimate_at(
    means: SeedMeans, index: tuple[int, ...], p: np.ndarray, powers: np.ndarray, note: str
) -> Estimate:
    """Build the estimate at an index of means over seeds, with its test.

    Args:
        means: over seeds.
        index: of the arrays.
        p: of the test, the shape of the means.
        powers: of the test, the same shape.
        note: why there is no estimate, and what is left out.
    """
    is_known = bool(np.isfinite(means.value[index]))
    has_interval = bool(means.method[index])
    few = "too few seeds for an interval" if is_known and not has_interval else ""
    return Estimate(
        value=float(means.value[index]),
        low=float(means.low[index]),
        high=float(means.high[index]),
        method=str(means.method[index]),
        p=float(p[index]),
        power=float(powers[index]) if is_known else np.nan,
        note=join_notes(note, few),
    )


def note_of_label(arrays: TreatedArrays, values: np.ndarray, copies: np.ndarray, label: int) -> str:
    """State why a row has no value, or which tasks and how many seeds it lacks.

    Args:
        arrays: of a setting.
        values: of the row, shape ``(seed, task)``.
        copies: number of comparable copies, same shape.
        label: index of the row among `TreatedArrays.task_labels`.
    """
    is_known = np.isfinite(values)
    tasks = _tasks_of_label(is_known.any(axis=0), label)
    if not len(tasks):
        measured = copies if label == len(arrays.tasks) else copies[:, [label]]
        return CONSTANT if (measured >= MIN_COPIES).any() else TOO_FEW_COPIES
    left_out_seeds = int((~is_known[:, tasks].all(axis=1)).sum())
    missing = [str(task) for t, task in enumerate(arrays.tasks) if t not in tasks]
    is_mean = label == len(arrays.tasks)
    plural = "" if left_out_seeds == 1 else "s"
    return join_notes(
        f"without task {', '.join(missing)}" if is_mean and missing else "",
        f"{left_out_seeds} seed{plural} left out" if left_out_seeds else "",
    )


def fewest_copies(copies: np.ndarray, values: np.ndarray, label: int) -> int:
    """Count the copies of the checkpoint that has the fewest, among those in a row.

    Args:
        copies: number of comparable copies, shape ``(seed, task)``.
        values: of the row, same shape; NaN where a checkpoint is not in it.
        label: index of the row among `TreatedArrays.task_labels`.
    """
    is_known = np.isfinite(values)
    tasks = _tasks_of_label(is_known.any(axis=0), label)
    is_used = is_known[:, tasks].all(axis=1)
    used = copies[is_used][:, tasks]
    return int(used.min()) if used.size else 0


def _tasks_of_label(is_defined: np.ndarray, label: int) -> np.ndarray:
    """Find the indices of the tasks that a row averages over.

    Args:
        is_defined: whether any seed has a value at a task, shape ``(task,)``.
        label: index of the row among `TreatedArrays.task_labels`.
    """
    defined = np.flatnonzero(is_defined)
    return defined if label == len(is_defined) else defined[defined == label]


def _over_settings(of_settings: Sequence[SettingEffect], relevant: float) -> Row:
    """Build the row of the setting ``all``.

    The model is that of `meta_analysis.consistency`. A difference of two τ lies in [−2, 2], so half
    of it is combined.

    Args:
        of_settings: the same statistic in each setting.
        relevant: see `interventions`.
    """
    rows = pd.DataFrame([effect.row for effect in of_settings])
    first = rows.iloc[0]
    unit = 2.0 if first["statistic"] == DIFFERENCE else 1.0
    clipped = np.clip(rows["estimate"].to_numpy() / unit, -MAX_TAU, MAX_TAU)
    errors = np.array([effect.error for effect in of_settings]) / unit
    effects = pd.DataFrame(
        {
            "setting": rows["setting"],
            "problem": [effect.problem for effect in of_settings],
            "z": np.arctanh(clipped),
            # the error of Fisher's z by the delta method
            "error": np.maximum(errors / (1 - clipped**2), MIN_ERROR),
            "p": rows["p"],
            "seeds": rows["seeds"],
        }
    )
    combined = combine_effects_over_settings(effects, int(first["claim"]), relevant / unit)
    row = pd.Series(combined, dtype=object).reindex(COLUMNS_OVER_SETTINGS)
    for name in ("estimate", "low", "high", "worst_estimate"):
        row[name] = unit * row[name]
    if row["problems"] < MIN_PROBLEMS:
        row[["low", "high", "p", "power"]] = np.nan
        row["interval"] = ""
        row["note"] = row["note"] if row["problems"] == 1 else "too few problems"
    if first["claim"]:
        row["sign_agreement"] = combined["as_claimed"]
    blocks = rows["block"].unique()
    return {
        "setting": "all",
        **{name: first[name] for name in KEYS_OVER_SETTINGS},
        **row.to_dict(),
        "block": blocks[0] if len(blocks) == 1 else "",
        "treatments": int(rows["treatments"].min()),
    }
