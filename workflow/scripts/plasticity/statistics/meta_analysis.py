"""How consistent is each explanation over settings, and where does it fail?

A claim that something causes the loss of plasticity requires that it changes with the error in
every setting. A meta-analysis estimates how far the correlations agree and what to expect of the
next problem. Settings of one problem share their data, so the problem is its unit. Counterexamples
are settings and arms in which only one of the two changes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from plasticity.config import quantities
from plasticity.config.models import is_baseline
from plasticity.statistics import power
from plasticity.statistics.changes import compute_change, first_and_late, growth_of_gap
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.null_models import (
    MIN_SEEDS,
    crossed_correlations,
    deviations,
    error_inflation,
    matched_correlations,
    standardized_ranks,
)
from plasticity.statistics.resampling import (
    SIGNIFICANCE_LEVEL,
    TAILS,
    Draws,
    bca,
    interval,
    permutation_test,
)
from plasticity.statistics.setting_arrays import (
    MIN_TASKS,
    CompleteSeries,
    SettingArrays,
    problems_of,
)

EXPLAINED_ARM = "none"  # the arm whose loss of plasticity is to be explained
MAX_CORRELATION = 0.999  # stronger correlations are cut here, because Fisher's z of 1 is infinite
ROUND_OFF = 1e-12  # smaller differences of Fisher's z are none
ARM_COLUMNS = [
    "measure",
    "estimate",
    "low",
    "high",
    "lost",
    "kept",
    "settings",
    "problems",
    "interval",
    "note",
]
COUNTEREXAMPLES = (
    "lost, and the measure is still",
    "lost, and the measure moves the other way",
    "kept, and the measure moves as claimed",
)
CONSISTENCY_COLUMNS = [
    "measure",
    "outcome",
    "association",
    "claim",
    "estimate",
    "low",
    "high",
    "p",
    "power",
    "q",
    "p_heterogeneity",
    "i_squared",
    "prediction_low",
    "prediction_high",
    "sign_agreement",
    "as_claimed",
    "beating",
    "worst_setting",
    "worst_estimate",
    "settings",
    "problems",
    "seeds",
    "interval",
    "note",
]
COUNTEREXAMPLE_COLUMNS = [
    "setting",
    "arm",
    "measure",
    "verdict",
    "counterexample",
    "loss",
    "loss_low",
    "loss_high",
    "change",
    "change_low",
    "change_high",
    "seeds",
    "tasks",
    "interval",
    "note",
]


def consistency(settings: Sequence[SettingArrays], draws: Draws, relevant: float) -> pd.DataFrame:
    """Combine the correlations within runs of all settings by a random-effects meta-analysis.

    The settings of a problem are first combined into one effect. The model is that of DerSimonian
    and Laird for Fisher's z. The variance between problems is that of Paule and Mandel, and the
    interval is that of Hartung and Knapp. The prediction interval is that of Higgins, Thompson and
    Spiegelhalter 2009.

    Args:
        settings: arrays of all settings; only the arm `none` is used.
        draws: of seeds.
        relevant: correlation over problems whose power is computed.

    Returns:
        One row per explanation, outcome and association. The association is `within_run`, or `task`
        without the curve that all seeds share. ``estimate, low, high, p`` are of the correlation
        over problems, ``q`` is Cochran's. ``prediction_low`` and ``prediction_high`` are for the
        next problem. Shares of settings: ``sign_agreement`` with the sign of the majority,
        ``as_claimed`` with the claimed sign, ``beating`` with p ≤ 0.05 against mismatched seeds.
        ``worst_setting`` agrees least with the claim, or with the majority if there is no claim.
    """
    effects: dict[tuple[str, str, str], list[Row]] = {}
    problems = problems_of(settings)
    for arrays in settings:
        if EXPLAINED_ARM not in arrays.arms:
            continue
        for series in arrays.explanations().complete_series(arrays.arms.index(EXPLAINED_ARM)):
            if len(series.seeds) < MIN_SEEDS or len(series.tasks) < MIN_TASKS:
                continue
            for key, effect in _effects(series, arrays.outcome_names, draws):
                effect["setting"] = arrays.setting
                effect["problem"] = problems[arrays.setting]
                effects.setdefault(key, []).append(effect)
    rows = []
    for (measure, outcome, association), of_settings in effects.items():
        keys: Row = {"measure": measure, "outcome": outcome, "association": association}
        sign = quantities.describe(measure).claimed_sign
        combined = combine_effects_over_settings(pd.DataFrame(of_settings), sign, relevant)
        rows.append({**keys, **combined})
    return pd.DataFrame(rows, columns=CONSISTENCY_COLUMNS)


def _effects(
    series: CompleteSeries, outcome_names: Sequence[str], draws: Draws
) -> Iterator[tuple[tuple[str, str, str], Row]]:
    """Compute Fisher's z of each measure, outcome and association, with its standard error.

    Yields:
        ``(measure, outcome, association)`` and ``{z, error, p, seeds}``.
    """
    seeds = len(series.seeds)
    x_ranks = standardized_ranks(series.x)
    y_ranks = standardized_ranks(series.y)
    p = permutation_test(crossed_correlations(x_ranks, y_ranks), draws)
    correlations = {
        "within_run": matched_correlations(x_ranks, y_ranks),
        "task": matched_correlations(
            standardized_ranks(deviations(series.x)), standardized_ranks(deviations(series.y))
        ),
    }
    inflation = {"within_run": 1.0, "task": error_inflation(seeds)}
    for association, per_seed in correlations.items():
        z = np.arctanh(np.clip(per_seed, -MAX_CORRELATION, MAX_CORRELATION))
        for m, variant in enumerate(series.variants):
            for o, outcome in enumerate(outcome_names):
                effect: Row = {
                    "z": z[m, o].mean(),
                    "error": inflation[association] * stats.sem(z[m, o]),
                    "p": p[m, o],
                    "seeds": seeds,
                }
                yield (variant.measure, outcome, association), effect


def combine_effects_over_settings(effects: pd.DataFrame, claimed: int, relevant: float) -> Row:
    """Combine the effects of one measure and outcome, see `consistency`.

    Args:
        effects: columns ``setting, problem, z, error, p, seeds``, a row per setting.
        claimed: sign of the claim; 0 without one.
        relevant: correlation over problems whose power is computed.

    Returns:
        The columns of `consistency` from ``claim`` on.
    """
    is_known = effects["z"].notna() & (effects["error"] > 0)
    known = effects[is_known]
    row: Row = {
        "claim": claimed,
        "settings": len(known),
        "problems": known["problem"].nunique(),
        "seeds": int(known["seeds"].min()) if len(known) else 0,
        "worst_setting": "",
    }
    if not len(known):
        return row | Estimate(note="constant").row()
    left_out = len(effects) - len(known)
    note = f"constant in {left_out} settings" if left_out else ""
    row |= _agreement(known, claimed)
    of_problems = _combine_settings(known)
    if len(of_problems) == 1:
        value = float(np.tanh(of_problems["z"].iloc[0]))
        reason = "one setting" if len(known) == 1 else "one problem"
        return row | Estimate(value, note=join_notes(note, reason)).row()
    return row | _random_effects(of_problems, note, relevant)


def _combine_settings(known: pd.DataFrame) -> pd.DataFrame:
    """Combine the effects of the settings of each problem: mean z, and the mean of its variances.

    This is the variance of a mean of fully dependent effects, and an upper bound for others.

    Args:
        known: columns ``problem, z, error``, a row per setting.

    Returns:
        Columns ``z, error``, a row per problem.
    """
    squared = known.assign(variance=known["error"] ** 2)
    means = squared.groupby("problem", sort=False)[["z", "variance"]].mean()
    return pd.DataFrame({"z": means["z"], "error": np.sqrt(means["variance"])})


def _agreement(known: pd.DataFrame, claimed: int) -> Row:
    """Compute shares of settings that agree, and find the setting that agrees least."""
    signs = np.sign(known["z"])
    majority = np.sign(signs.sum()) or signs.iloc[0]
    worst = known.loc[(known["z"] * (claimed or majority)).idxmin()]
    return {
        "sign_agreement": float((signs == majority).mean()),
        "as_claimed": float((signs == claimed).mean()) if claimed else np.nan,
        "beating": float((known["p"] <= SIGNIFICANCE_LEVEL).mean()),
        "worst_setting": worst["setting"],
        "worst_estimate": float(np.tanh(worst["z"])),
    }


def _random_effects(effects: pd.DataFrame, note: str, relevant: float) -> Row:
    """Fit the random-effects model to at least two problems.

    Args:
        effects: from `_combine_settings`.
        note: for the row.
        relevant: see `consistency`.
    """
    problems = len(effects)
    z = effects["z"].to_numpy()
    if np.ptp(z) < ROUND_OFF:
        # Without any variation over problems, the interval would have no width.
        return Estimate(np.tanh(z[0]), note=join_notes(note, "the same in all problems")).row()
    variances = effects["error"].to_numpy() ** 2
    fit = combine_effects(z, variances, method_re="iterated", use_t=True)
    low, high = fit.conf_int(use_t=True)[3]
    centre = fit.mean_effect_re
    error = fit.sd_eff_w_re_hksj
    row: Row = {
        "q": fit.q,
        "p_heterogeneity": stats.chi2.sf(fit.q, problems - 1),
        "i_squared": max(0.0, fit.i2),
    }
    if problems < 3:
        note = join_notes(note, "too few problems for a prediction interval")
    else:
        spread = np.sqrt(fit.tau2 + error**2)
        reach = stats.t.ppf(TAILS[1], max(1, problems - 2))
        row["prediction_low"] = np.tanh(centre - reach * spread)
        row["prediction_high"] = np.tanh(centre + reach * spread)
    estimate = Estimate(
        value=np.tanh(centre),
        low=np.tanh(low),
        high=np.tanh(high),
        method="Hartung-Knapp over problems",
        p=2 * stats.t.sf(abs(centre) / error, problems - 1),
        power=float(power.of_t_test(np.arctanh(relevant), error, problems - 1)),
        note=note,
    )
    return row | estimate.row()


def find_counterexamples(
    settings: Sequence[SettingArrays], draws: Draws, lost: float, moved: float
) -> pd.DataFrame:
    """Compare each arm's loss of plasticity with the change of every measure that has a claim.

    Args:
        settings: arrays of all settings.
        draws: of seeds.
        lost: plasticity is lost if the gap to the baseline grows by more than this, and kept if it
            grows by less. The whole interval must lie on one side.
        moved: a measure moves if its change exceeds this. Changes of shares are absolute. Others
            are relative to the larger of the two values.

    Returns:
        One row per setting, arm and measure: the changes of the gap and of the measure from the
        first trained network to late tasks, with intervals over seeds, and the ``verdict``. Changes
        are positive in the claimed direction. Counterexamples come first.
    """
    rows = []
    for arrays in settings:
        rows += list(_counterexample_rows(arrays.explanations(), draws, lost, moved))
    table = pd.DataFrame(rows, columns=COUNTEREXAMPLE_COLUMNS)
    return table.sort_values("counterexample", ascending=False, kind="stable", ignore_index=True)


def _counterexample_rows(
    arrays: SettingArrays, draws: Draws, lost: float, moved: float
) -> Iterator[Row]:
    """Build the rows of one setting."""
    tasks = arrays.outcomes.shape[-1]
    for arm, name in enumerate(arrays.arms):
        gaps = arrays.gaps(arm)
        for series in arrays.complete_series(arm):
            if not len(series.seeds):
                continue
            loss = _mean_estimate(growth_of_gap(gaps[series.seeds]), draws)
            for variant, values in zip(series.variants, series.x, strict=True):
                measure = variant.measure
                sign = quantities.describe(measure).claimed_sign
                if not sign:
                    continue
                first, late = first_and_late(values, series.tasks, tasks)
                change = _mean_estimate(sign * compute_change(measure, first, late), draws)
                verdict = _verdict(loss, change, lost, moved)
                yield {
                    "setting": arrays.setting,
                    "arm": name,
                    "measure": measure,
                    "verdict": verdict,
                    "counterexample": verdict in COUNTEREXAMPLES,
                    "loss": loss.value,
                    "loss_low": loss.low,
                    "loss_high": loss.high,
                    "change": change.value,
                    "change_low": change.low,
                    "change_high": change.high,
                    "seeds": len(series.seeds),
                    "tasks": len(series.tasks),
                    "interval": loss.method,
                    "note": series.note,
                }


def rank_arms(
    counterexamples: pd.DataFrame, problems: Mapping[str, str], draws: Draws
) -> pd.DataFrame:
    """Compute how well the change of each measure tells arms that lose plasticity from others.

    This is the claim itself: over arms of all settings, plasticity is lost where the measure moves.

    Args:
        counterexamples: from `find_counterexamples`.
        problems: of each setting, from `problems_of`.
        draws: of problems.

    Returns:
        One row per measure: the AUC, which is the probability that of two arms, of which one loses
        plasticity and one keeps it, the measure moves more as claimed in the first. The interval
        is over problems, because arms and settings of a problem share their data.
    """
    rows: list[Row] = []
    for measure, table in counterexamples.groupby("measure", sort=False):
        is_arm = ~table["arm"].map(is_baseline)
        known = table[is_arm & table["change"].notna()]
        changes = {
            fate: known[known["verdict"].str.startswith(f"{fate},")] for fate in ("lost", "kept")
        }
        names = sorted(set(known["setting"].map(problems)))
        wins, pairs = _pairs_of_problems(changes["lost"], changes["kept"], problems, names)
        estimate = _resampled_auc(wins, pairs, draws)
        rows.append(
            {
                "measure": measure,
                **estimate.row(),
                "lost": len(changes["lost"]),
                "kept": len(changes["kept"]),
                "settings": known["setting"].nunique(),
                "problems": len(names),
            }
        )
    return pd.DataFrame(rows, columns=ARM_COLUMNS)


def _pairs_of_problems(
    lost: pd.DataFrame, kept: pd.DataFrame, problems: Mapping[str, str], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Count pairs of an arm that loses and one that keeps plasticity, by their problems.

    Args:
        lost: columns ``setting, change``, a row per arm that loses plasticity.
        kept: the same for arms that keep it.
        problems: of each setting.
        names: of the problems, in the order of the axes.

    Returns:
        Pairs in which the measure moves more in the first, a tie counting half, and all pairs,
        shapes ``(problem, problem)``.
    """
    x, y = lost["change"].to_numpy()[:, None], kept["change"].to_numpy()[None, :]
    is_win = (x > y) + (x == y) / 2
    axis = np.array(names, object)
    problems_of_lost = lost["setting"].map(problems).to_numpy(object)
    problems_of_kept = kept["setting"].map(problems).to_numpy(object)
    of_lost = (problems_of_lost[:, None] == axis).astype(float)
    of_kept = (problems_of_kept[:, None] == axis).astype(float)
    return of_lost.T @ is_win @ of_kept, of_lost.T @ np.ones_like(is_win) @ of_kept


def _resampled_auc(wins: np.ndarray, pairs: np.ndarray, draws: Draws) -> Estimate:
    """Compute an AUC with its interval over problems."""
    if not pairs.any():
        return Estimate(note="no arm loses plasticity, or none keeps it")

    def auc(counts: np.ndarray) -> np.ndarray:
        won = np.einsum("dp,pq,dq->d", counts, wins, counts)
        compared = np.einsum("dp,pq,dq->d", counts, pairs, counts)
        with np.errstate(invalid="ignore"):
            return np.asarray((won / compared)[:, None])

    value = float(wins.sum() / pairs.sum())
    if value in (0, 1):
        return Estimate(value, note="it separates all arms, so resamples give no interval")
    low, high = bca(auc, len(pairs), draws)
    has_interval = bool(np.isfinite(low[0]))
    note = "" if has_interval else "too few problems for an interval"
    method = "BCa over problems" if has_interval else ""
    return Estimate(value, float(low[0]), float(high[0]), method, note=note)


def fate(arrays: SettingArrays, draws: Draws, lost: float, arm: str = "none") -> str:
    """Judge whether an arm loses plasticity in a setting.

    Args:
        arrays: of the setting.
        draws: of seeds.
        lost: see `find_counterexamples`.
        arm: its name.

    Returns:
        ``lost``, ``kept``, or ``unclear``, also if the setting lacks the arm or has too few seeds.
    """
    if arm not in arrays.arms:
        return "unclear"
    gaps = arrays.gaps(arrays.arms.index(arm))
    complete = gaps[np.isfinite(gaps).all(axis=1)]
    if not len(complete):
        return "unclear"
    return _fate(_mean_estimate(growth_of_gap(complete), draws), lost)


def _fate(loss: Estimate, lost: float) -> str:
    """Judge the growth of the gap by its interval."""
    if not loss.method:
        return "unclear"
    if loss.low > lost:
        return "lost"
    return "kept" if loss.high < lost else "unclear"


def _mean_estimate(values: np.ndarray, draws: Draws) -> Estimate:
    """Average over seeds, shape ``(seed,)``; no estimate if nothing was measured."""
    if np.isnan(values).all():
        return Estimate()
    low, high, method = interval(values, draws)
    return Estimate(values.mean(), low, high, method).at()


def _verdict(loss: Estimate, change: Estimate, lost: float, moved: float) -> str:
    """Judge a claim by intervals.

    Args:
        loss: growth of the gap.
        change: of the measure, positive in the claimed direction.
        lost: see `find_counterexamples`.
        moved: see `find_counterexamples`.
    """
    if np.isnan(change.value):
        return "not measured early and late"
    if not loss.method:
        return "too few seeds"
    fate_of_arm = _fate(loss, lost)
    if fate_of_arm == "lost":
        if change.high < -moved:
            return "lost, and the measure moves the other way"
        if -moved <= change.low and change.high <= moved:
            return "lost, and the measure is still"
        if change.low > moved:
            return "lost, and the measure moves as claimed"
        return "lost, and the measure is unclear"
    if fate_of_arm == "kept":
        if change.low > moved:
            return "kept, and the measure moves as claimed"
        return "kept, and nothing against the claim"
    return "unclear"
