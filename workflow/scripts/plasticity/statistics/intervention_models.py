"""Models within checkpoints: what curvature adds, whether one curve fits all families, and doses.

All models use the ranks of the copies of a checkpoint, so their scale does not matter. Null
distributions exchange whole treatments in all seeds and tasks at once, as in `interventions`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.models import method_of
from plasticity.config.quantities import is_rank
from plasticity.statistics.estimate import Row, join_notes
from plasticity.statistics.interventions import (
    CONSTANT,
    estimate_at,
    fewest_copies,
    note_of_label,
    power_of_null,
)
from plasticity.statistics.null_models import standardized_ranks
from plasticity.statistics.prediction import SIMPLE_MEASURES
from plasticity.statistics.resampling import ROUND_OFF, Draws, two_sided_p
from plasticity.statistics.treated_arrays import (
    MIN_COPIES,
    TreatedArrays,
    average_over_seeds,
    by_task_label,
    label_weights,
)

ADDED, FAMILY, DOSE = "added", "family", "dose"
MIN_DOSES = 3  # for a correlation with the strength
MIN_FREEDOM = 3  # copies beyond the coefficients of a model
COLUMNS = [
    "setting",
    "arm",
    "task",
    "measure",
    "outcome",
    "statistic",
    "treatment",
    "estimate",
    "low",
    "high",
    "p",
    "power",
    "seeds",
    "treatments",
    "interval",
    "note",
]


def intervention_models(
    settings: Sequence[TreatedArrays], draws: Draws, relevant: float
) -> pd.DataFrame:
    """Fit three kinds of models to the copies of each checkpoint.

    Args:
        settings: copies of the settings that have interventions.
        draws: of seeds and permutations.
        relevant: partial correlation whose power is computed.

    Returns:
        One row per setting, arm, task and model; the task `all` is the mean over tasks.

        ``added``: the partial rank correlation of a rank of curvature and the outcome, given
        `SIMPLE_MEASURES` (those that vary), mean over seeds. The test is that of Freedman and Lane
        1983: residuals of the outcome given the simple measures are permuted.

        ``family``: the share of the variance between families in the residuals of the outcome's
        ranks given the measure's ranks, mean over seeds. Does one curve fit all families? The test
        permutes the families of the treatments; p is one-sided. The note has the mean share of
        these permutations, which is what chance gives.

        ``dose``: Kendall's τ-b between the strength of a treatment and the outcome, or a measure,
        mean over seeds, for treatments with at least `MIN_DOSES` doses. It has no test: so few
        doses have too few orders.
    """
    rows: list[Row] = []
    for arrays in settings:
        for arm, name in enumerate(arrays.arms):
            keys: Row = {"setting": arrays.setting, "arm": name}
            models = [
                *_added_rows(arrays, arm, draws, relevant),
                *_family_rows(arrays, arm, draws),
                *_dose_rows(arrays, arm, draws),
            ]
            rows += [keys | row for row in models]
    return pd.DataFrame(rows, columns=COLUMNS)


def _added_rows(arrays: TreatedArrays, arm: int, draws: Draws, relevant: float) -> Iterator[Row]:
    """Build the rows of what each rank adds to the simple measures."""
    simple = [arrays.measures.index(name) for name in SIMPLE_MEASURES if name in arrays.measures]
    ranks = [index for index, name in enumerate(arrays.measures) if is_rank(name)]
    if not (simple and ranks and arrays.outcomes):
        return
    orders = arrays.orders(draws)
    outcomes, seeds, tasks = len(arrays.outcomes), arrays.seeds, len(arrays.tasks)
    needed = arrays.x[[*simple, *ranks], arm]
    is_comparable = np.isfinite(needed).all(axis=0) & np.isfinite(arrays.y[:, arm]).all(axis=0)
    copies = is_comparable.sum(axis=-1)
    correlations = np.full((len(ranks), outcomes, seeds, tasks), np.nan)
    drawn: dict[tuple[int, int], np.ndarray] = {}
    varying: set[int] = set()
    for seed in range(seeds):
        for task in range(tasks):
            mask = is_comparable[seed, task]
            if mask.sum() < MIN_COPIES:
                continue
            given = [m for m in simple if np.ptp(arrays.x[m, arm, seed, task][mask]) > 0]
            if mask.sum() < len(given) + 1 + MIN_FREEDOM:
                continue
            varying.update(given)
            of_cell = permuted_partial_correlations(
                arrays.x[ranks, arm, seed, task],
                arrays.y[:, arm, seed, task],
                arrays.x[given, arm, seed, task],
                mask,
                orders,
            )
            drawn[seed, task] = of_cell
            correlations[..., seed, task] = of_cell[0]
    weights = label_weights(correlations)
    null = np.zeros((len(orders), tasks + 1, len(ranks), outcomes))
    for (seed, task), values in drawn.items():
        known = np.nan_to_num(values)
        for label in range(tasks + 1):
            null[:, label] += weights[label, ..., seed, task] * known
    means = average_over_seeds(by_task_label(correlations), draws)
    p = two_sided_p(np.where(np.isfinite(means.value), null, np.nan))
    powers = power_of_null(null, relevant)
    given_note = "given " + ", ".join(arrays.measures[m] for m in simple if m in varying)
    for label, task_name in enumerate(arrays.task_labels):
        for r, index in enumerate(ranks):
            for o, outcome in enumerate(arrays.outcomes):
                values = correlations[r, o]
                note = join_notes(given_note, note_of_label(arrays, values, copies, label))
                estimate = estimate_at(means, (label, r, o), p, powers, note)
                yield {
                    "task": task_name,
                    "measure": arrays.measures[index],
                    "outcome": outcome,
                    "statistic": ADDED,
                    "treatment": "",
                    **estimate.row(),
                    "seeds": int(means.seeds[label, r, o]),
                    "treatments": fewest_copies(copies, values, label),
                }


def permuted_partial_correlations(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, is_comparable: np.ndarray, orders: np.ndarray
) -> np.ndarray:
    """Compute partial rank correlations over the copies of a checkpoint, for permuted residuals.

    Freedman and Lane 1983 permute the residuals e of the outcome given the other measures, and add
    them to the fitted outcome. This outcome's residuals are those of the permuted e, because the
    fitted part has none.

    Args:
        x: measures, shape ``(measure, copy)``.
        y: outcomes, shape ``(outcome, copy)``.
        given: other measures, shape ``(other, copy)``.
        is_comparable: copies that have all of these, shape ``(copy,)``.
        orders: for each copy, the copy that takes its place, shape ``(draw, copy)``. A copy that is
            not comparable has a residual of 0.

    Returns:
        Shape ``(draw, measure, outcome)``; NaN where the others determine the measure or the
        outcome.
    """
    copies = int(is_comparable.sum())
    ranks = _centred_ranks(given[:, is_comparable])
    basis, sizes, _ = np.linalg.svd(np.vstack([np.ones(copies), ranks]).T, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes[0]]

    def residuals(values: np.ndarray) -> np.ndarray:
        return np.asarray(values - (values @ basis) @ basis.T)

    x_residuals = _scaled(residuals(_centred_ranks(x[:, is_comparable])))
    y_residuals = np.zeros(y.shape)
    y_residuals[:, is_comparable] = residuals(_centred_ranks(y[:, is_comparable]))
    permuted = y_residuals[:, orders[:, is_comparable]]  # (outcome, draw, copy)
    correlations = _scaled(residuals(permuted)) @ x_residuals.T
    return np.asarray(correlations.transpose(1, 2, 0))


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Rank the last axis around 0, scaled to lie in [−1, 1]."""
    copies = values.shape[-1]
    return np.asarray((2 * stats.rankdata(values, axis=-1) - copies - 1) / (copies - 1))


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scale the last axis to unit norm; NaN where only round-off is left of ranks in [−1, 1]."""
    norms = np.sqrt((values**2).sum(axis=-1, keepdims=True))
    return np.asarray(values / np.where(norms > 1e-9, norms, np.nan))


def _family_rows(arrays: TreatedArrays, arm: int, draws: Draws) -> Iterator[Row]:
    """Build the rows of the families' share of what a measure does not explain."""
    families = permuted_families(arrays, draws)
    if families.shape[2] < 2 or not (arrays.measures and arrays.outcomes):
        return
    outcomes, seeds, tasks = len(arrays.outcomes), arrays.seeds, len(arrays.tasks)
    for indices, is_comparable in arrays.comparable_measures(arm):
        shares = np.full((len(indices), outcomes, seeds, tasks), np.nan)
        copies = is_comparable.sum(axis=-1)
        drawn: dict[tuple[int, int], np.ndarray] = {}
        for seed in range(seeds):
            for task in range(tasks):
                mask = is_comparable[seed, task]
                if mask.sum() < MIN_COPIES:
                    continue
                x = arrays.x[indices, arm, seed, task][:, mask]
                y = arrays.y[:, arm, seed, task][:, mask]
                residuals = residuals_of_ranks(x, y)
                of_cell = shares_between(residuals, families[:, mask])
                drawn[seed, task] = of_cell
                shares[..., seed, task] = of_cell[0]
        weights = label_weights(shares)
        null = np.zeros((len(families), tasks + 1, len(indices), outcomes))
        for (seed, task), values in drawn.items():
            known = np.nan_to_num(values)
            for label in range(tasks + 1):
                null[:, label] += weights[label, ..., seed, task] * known
        means = average_over_seeds(by_task_label(shares), draws)
        p = (null >= null[0] - ROUND_OFF).mean(axis=0)
        p = np.where(np.isfinite(means.value), p, np.nan)
        by_chance = null.mean(axis=0)
        no_power = np.full(p.shape, np.nan)
        for label, task_name in enumerate(arrays.task_labels):
            for m, index in enumerate(indices):
                for o, outcome in enumerate(arrays.outcomes):
                    position = (label, m, o)
                    note = note_of_label(arrays, shares[m, o], copies, label)
                    if np.isfinite(means.value[position]):
                        note = join_notes(f"by chance {by_chance[position]:.2f}", note)
                    estimate = estimate_at(means, position, p, no_power, note)
                    yield {
                        "task": task_name,
                        "measure": arrays.measures[index],
                        "outcome": outcome,
                        "statistic": FAMILY,
                        "treatment": "",
                        **estimate.row(),
                        "seeds": int(means.seeds[position]),
                        "treatments": fewest_copies(copies, shares[m, o], label),
                    }


def permuted_families(arrays: TreatedArrays, draws: Draws) -> np.ndarray:
    """Permute the families of treatments; all doses of a treatment have its family.

    Args:
        arrays: of a setting.
        draws: of permutations of treatments.

    Returns:
        Whether a copy belongs to a family, shape ``(draw, copy, family)``; the first draw is the
        observed one.
    """
    names = list(dict.fromkeys(arrays.families))
    treatment_of_copy = arrays.treatment_of_copy
    first_copy = [int(np.argmax(treatment_of_copy == t)) for t in range(len(arrays.treatments))]
    family_of_treatment = np.array([names.index(arrays.families[copy]) for copy in first_copy])
    permuted = family_of_treatment[draws.permutations(len(first_copy))]
    is_family = np.eye(len(names), dtype=np.float32)
    return np.asarray(is_family[permuted[:, treatment_of_copy]])


def residuals_of_ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Subtract from each outcome's ranks what the ranks of each measure explain along a line.

    Args:
        x: measures, shape ``(measure, copy)``.
        y: outcomes, shape ``(outcome, copy)``.

    Returns:
        With mean 0, shape ``(measure, outcome, copy)``; NaN where one of the two is constant.
    """
    x_ranks, y_ranks = standardized_ranks(x), standardized_ranks(y)
    slopes = x_ranks @ y_ranks.T
    return np.asarray(y_ranks - slopes[..., None] * x_ranks[:, None])


def shares_between(residuals: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Compute the share of the sum of squares that lies between families.

    Args:
        residuals: with mean 0, shape ``(measure, outcome, copy)``.
        families: whether a copy belongs to a family, shape ``(draw, copy, family)``.

    Returns:
        Shape ``(draw, measure, outcome)``; NaN where nothing is left to explain.
    """
    by_copy = residuals.reshape(-1, residuals.shape[-1]).T
    total = (by_copy**2).sum(axis=0)
    known = np.where(total > 1e-12, by_copy, 0.0)
    counts = families.sum(axis=1)
    sums = np.tensordot(families, known, axes=(1, 0))  # (draw, family, series)
    between = (sums**2 / np.maximum(counts, 1)[..., None]).sum(axis=1)
    shares = between / np.where(total > 1e-12, total, np.nan)
    return np.asarray(shares.reshape(len(families), *residuals.shape[:2]))


def _dose_rows(arrays: TreatedArrays, arm: int, draws: Draws) -> Iterator[Row]:
    """Build the rows of the correlations with the strength of each treatment."""
    values = np.concatenate([arrays.y[:, arm], arrays.x[:, arm]])  # (quantity, seed, task, copy)
    of_outcomes = [("", outcome) for outcome in arrays.outcomes]
    quantities = of_outcomes + [(measure, "") for measure in arrays.measures]
    for treatment in arrays.treatments:
        is_dose = np.array([method_of(copy) == treatment for copy in arrays.copies])
        is_dose &= np.isfinite(arrays.strengths)
        if is_dose.sum() < MIN_DOSES:
            continue
        taus = taus_with(arrays.strengths[is_dose], values[..., is_dose])
        means = average_over_seeds(by_task_label(taus), draws)
        doses = np.isfinite(values[..., is_dose]).sum(axis=-1)
        no_test = np.full(means.value.shape, np.nan)
        for label, task_name in enumerate(arrays.task_labels):
            for q, (measure, outcome) in enumerate(quantities):
                enough = (doses[q] >= MIN_DOSES).any()
                note = "" if enough else f"fewer than {MIN_DOSES} doses"
                if enough and np.isnan(means.value[label, q]):
                    note = CONSTANT
                estimate = estimate_at(means, (label, q), no_test, no_test, note)
                yield {
                    "task": task_name,
                    "measure": measure,
                    "outcome": outcome,
                    "statistic": DOSE,
                    "treatment": treatment,
                    **estimate.row(),
                    "seeds": int(means.seeds[label, q]),
                    "treatments": fewest_copies(doses[q], taus[q], label),
                }


def taus_with(strengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute Kendall's τ-b between strengths and values.

    Args:
        strengths: shape ``(dose,)``.
        values: shape ``(…, dose)``; NaN where missing.

    Returns:
        Shape ``(…)``; NaN for fewer than `MIN_DOSES` values, or where all are the same.
    """
    first, second = np.triu_indices(len(strengths), 1)
    dose_signs = np.sign(strengths[first] - strengths[second])
    differences = values[..., first] - values[..., second]
    is_pair = np.isfinite(differences)
    value_signs = np.where(is_pair, np.sign(differences), 0)
    product = (is_pair * dose_signs**2).sum(axis=-1) * (value_signs**2).sum(axis=-1)
    is_enough = np.isfinite(values).sum(axis=-1) >= MIN_DOSES
    divisor = np.sqrt(np.where((product > 0) & is_enough, product, np.nan))
    return np.asarray((value_signs * dose_signs).sum(axis=-1) / divisor)
