"""Compare arms, paired by seed, with stratified bootstrap intervals. Lower outcomes are better.

After Agarwal et al. 2021 (arXiv 2108.13264).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.models import baseline_of, is_baseline
from plasticity.statistics import power
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.resampling import (
    BCA,
    MIN_BOOTSTRAP_SEEDS,
    TAILS,
    Draws,
    bca,
    interval,
    two_sided_p,
)
from plasticity.statistics.setting_arrays import SettingArrays, incomplete_note
from plasticity.training.outcomes import stages

STAGES = ("late", "all")
STRATIFIED = "stratified bootstrap over seeds"
TRIMMED = {"mean": 0.0, "interquartile_mean": 0.25}  # share that each statistic cuts at both ends
THRESHOLDS = {"error": np.linspace(0, 1, 21), "gap": np.linspace(-0.5, 0.5, 21)}
NO_INTERVAL = "too few seeds for an interval"
COLUMNS = [
    "setting",
    "arm",
    "versus",
    "outcome",
    "stage",
    "statistic",
    "estimate",
    "low",
    "high",
    "p",
    "power",
    "seeds",
    "tasks",
    "interval",
    "note",
]
PROFILE_COLUMNS = [
    "arm",
    "outcome",
    "threshold",
    "estimate",
    "low",
    "high",
    "seeds",
    "settings",
    "interval",
    "note",
]
Scores = dict[str, np.ndarray]  # score of each seed, by the name of the arm


def comparisons(
    settings: Sequence[SettingArrays],
    draws: Draws,
    lost: float,
    declared: Collection[tuple[str, str]] = (),
) -> pd.DataFrame:
    """Summarize every arm, and compare it with `none` and with its baseline.

    This is done in each setting, and over all settings for the arms that all settings have.

    Args:
        settings: arrays of all settings.
        draws: of seeds.
        lost: difference whose power is computed, that of a lost plasticity.
        declared: further pairs of arms, the first versus the second.

    Returns:
        One row per setting (or `all`), arm, outcome, stage and statistic. An arm has `mean` and
        `interquartile_mean`. An arm versus another has `mean_difference` (arm minus the other,
        paired by seed, p by flips of signs) and `probability_of_improvement` (that a run of the arm
        has the lower outcome). Scores are means over the tasks of the stage; diverged runs have
        none.
    """
    rows: list[Row] = []
    for outcome in _outcome_names(settings):
        with_outcome = [arrays for arrays in settings if outcome in arrays.outcome_names]
        for stage in STAGES:
            keys: Row = {"outcome": outcome, "stage": stage}
            scores = {arrays.setting: _scores(arrays, outcome, stage) for arrays in with_outcome}
            tasks = {arrays.setting: _window_length(arrays, stage) for arrays in with_outcome}
            for setting, of_setting in scores.items():
                keys |= {"setting": setting, "tasks": tasks[setting]}
                rows += [
                    {**keys, **row} for row in _compare_arms([of_setting], draws, lost, declared)
                ]
            if len(scores) > 1:
                keys |= {"setting": "all", "tasks": min(tasks.values())}
                rows += [
                    {**keys, **row}
                    for row in _compare_arms(list(scores.values()), draws, lost, declared)
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def profiles(settings: Sequence[SettingArrays], draws: Draws) -> pd.DataFrame:
    """Compute performance profiles over all settings, for late outcomes.

    A profile is the share of runs whose outcome is at most a threshold.

    Args:
        settings: arrays of all settings.
        draws: of seeds.

    Returns:
        One row per arm that every setting has, outcome and threshold, with pointwise intervals.
    """
    rows: list[Row] = []
    for outcome in _outcome_names(settings):
        thresholds = THRESHOLDS["gap" if outcome.endswith("gap") else "error"]
        scores = [
            _scores(arrays, outcome, "late")
            for arrays in settings
            if outcome in arrays.outcome_names
        ]
        for arm in _common_arms(scores):
            runs = [_finite(of_setting[arm]) for of_setting in scores]
            seeds = min(len(of_setting) for of_setting in runs)
            if not seeds:
                continue
            keys: Row = {"arm": arm, "outcome": outcome, "seeds": seeds, "settings": len(runs)}
            estimates = _profile(runs, thresholds, draws)
            for threshold, estimate in zip(thresholds, estimates, strict=True):
                rounded = round(float(threshold), 6)
                rows.append({**keys, "threshold": rounded, **estimate.row()})
    return pd.DataFrame(rows, columns=PROFILE_COLUMNS)


def _profile(
    runs: Sequence[np.ndarray], thresholds: np.ndarray, draws: Draws
) -> Iterator[Estimate]:
    """Compute the share of runs at or below each threshold.

    Args:
        runs: scores of each setting, shapes ``(seed,)``.
        thresholds: shape ``(threshold,)``.
        draws: of seeds.
    """
    is_below = [(of_setting[:, None] <= thresholds + 1e-12).astype(float) for of_setting in runs]
    means = np.mean(_resampled_means(is_below, draws), axis=0)
    low, high = np.quantile(means, TAILS, axis=0)
    has_few_seeds = min(len(of_setting) for of_setting in runs) < MIN_BOOTSTRAP_SEEDS
    for t in range(len(thresholds)):
        share = np.mean([of_setting[:, t].mean() for of_setting in is_below])
        if has_few_seeds:
            yield Estimate(share, note=NO_INTERVAL)
        else:
            yield Estimate(share, low[t], high[t], STRATIFIED)


def _outcome_names(settings: Sequence[SettingArrays]) -> list[str]:
    """List the outcomes of all settings, in the order of their first occurrence."""
    names: dict[str, None] = {}
    for arrays in settings:
        names |= dict.fromkeys(arrays.outcome_names)
    return list(names)


def _common_arms(scores: Sequence[Scores]) -> list[str]:
    """List the arms that every setting has."""
    return [arm for arm in scores[0] if all(arm in of_setting for of_setting in scores)]


def _window_length(arrays: SettingArrays, stage: str) -> int:
    """Count the tasks of a stage."""
    window = stages(arrays.outcomes.shape[-1])[stage]
    return int(window.stop - window.start)


def _scores(arrays: SettingArrays, outcome: str, stage: str) -> Scores:
    """Average an outcome over the tasks of a stage; NaN for runs that diverged."""
    values = arrays.outcomes[arrays.outcome_names.index(outcome)]
    window = stages(values.shape[-1])[stage]
    is_complete = np.isfinite(values).all(axis=-1)
    scores = np.where(is_complete, values[..., window].mean(axis=-1), np.nan)
    return dict(zip(arrays.arms, scores, strict=True))


def _finite(scores: np.ndarray) -> np.ndarray:
    """Leave out the runs without a score."""
    return np.asarray(scores[np.isfinite(scores)])


def _compare_arms(
    scores: Sequence[Scores], draws: Draws, lost: float, declared: Collection[tuple[str, str]]
) -> Iterator[Row]:
    """Build the rows of one setting, or of several settings together.

    Args:
        scores: of each setting.
        draws: of seeds.
        lost: see `comparisons`.
        declared: further pairs of arms.
    """
    arms = _common_arms(scores)
    for arm in arms:
        for row in _summaries([of_setting[arm] for of_setting in scores], draws):
            yield {"arm": arm, "versus": "", **row}
        for versus in arms:
            is_default = not is_baseline(arm) and versus in ("none", baseline_of(arm, arms))
            if (arm, versus) in declared or (is_default and arm != versus):
                pairs = [(of_setting[arm], of_setting[versus]) for of_setting in scores]
                for row in _paired_comparisons(pairs, draws, lost):
                    yield {"arm": arm, "versus": versus, **row}


def _summaries(scores: Sequence[np.ndarray], draws: Draws) -> Iterator[Row]:
    """Compute the mean and the interquartile mean of an arm.

    Args:
        scores: of each setting, shapes ``(seed,)``.
        draws: of seeds; each setting is resampled independently.
    """
    runs = [_finite(of_setting) for of_setting in scores]
    seeds = min(len(of_setting) for of_setting in runs)
    left_out = sum(map(len, scores)) - sum(map(len, runs))
    for statistic, trimmed in TRIMMED.items():
        estimate = _trimmed_mean(runs, trimmed, draws)
        note = join_notes(incomplete_note(left_out), estimate.note)
        yield {"statistic": statistic, "seeds": seeds, **replace(estimate, note=note).row()}


def _trimmed_mean(runs: Sequence[np.ndarray], trimmed: float, draws: Draws) -> Estimate:
    """Compute a trimmed mean over all runs, with a stratified bootstrap interval.

    Args:
        runs: finite scores of each setting, shapes ``(seed,)``.
        trimmed: share that is cut at each end.
        draws: of seeds.
    """
    seeds = min(len(of_setting) for of_setting in runs)
    if not seeds:
        return Estimate(note="every seed diverged")
    mean = float(stats.trim_mean(np.concatenate(runs), trimmed))
    if seeds < MIN_BOOTSTRAP_SEEDS:
        return Estimate(mean, note=NO_INTERVAL)
    resampled = []
    for stratum, of_setting in enumerate(runs):
        resampled.append(of_setting[draws.resamples(len(of_setting), stratum)])
    means = stats.trim_mean(np.concatenate(resampled, axis=1), trimmed, axis=1)
    low, high = np.quantile(means, TAILS)
    return Estimate(mean, low, high, STRATIFIED)


def _paired_comparisons(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: Draws, lost: float
) -> Iterator[Row]:
    """Compare an arm with another by the seeds that both have.

    Args:
        pairs: scores of both arms in each setting, shapes ``(seed,)``.
        draws: of seeds.
        lost: see `comparisons`.
    """
    complete_pairs = []
    left_out = 0
    for first, second in pairs:
        is_complete = np.isfinite(first) & np.isfinite(second)
        complete_pairs.append((first[is_complete], second[is_complete]))
        left_out += len(is_complete) - int(is_complete.sum())
    seeds = min(len(first) for first, _ in complete_pairs)
    if seeds:
        difference = _mean_difference(complete_pairs, draws, lost)
        improvement = _probability_of_improvement(complete_pairs, draws)
    else:
        difference = improvement = Estimate(note="no seed has both")
    for statistic, estimate in (
        ("mean_difference", difference),
        ("probability_of_improvement", improvement),
    ):
        note = join_notes(incomplete_note(left_out), estimate.note)
        yield {"statistic": statistic, "seeds": seeds, **replace(estimate, note=note).row()}


def _mean_difference(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: Draws, lost: float
) -> Estimate:
    """Average the differences of pairs over seeds, then over settings; p by flips of signs.

    Args:
        pairs: complete scores of both arms in each setting.
        draws: of seeds.
        lost: see `comparisons`.
    """
    differences = [first - second for first, second in pairs]
    seeds = min(len(of_setting) for of_setting in differences)
    value = float(np.mean([of_setting.mean() for of_setting in differences]))
    if len(differences) == 1:
        low, high, method = interval(differences[0], draws)
        estimate = Estimate(value, low.item(), high.item(), method)
    else:
        estimate = _stratified(value, _resampled_means(differences, draws), seeds)
    smallest_p = 2 / 2 ** sum(map(len, differences))
    if not estimate.method:
        note = NO_INTERVAL
    else:
        note = f"the smallest p possible is {smallest_p:g}" if smallest_p > 0.05 else ""
    if seeds < 2:
        return replace(estimate, note=note)
    p = _sign_flip_test(differences, draws)
    return replace(estimate, p=p, power=power.of_sign_flips(lost, differences), note=note)


def _sign_flip_test(differences: Sequence[np.ndarray], draws: Draws) -> float:
    """Compare the mean difference with those after random flips of signs: two-sided p.

    Args:
        differences: of each setting, shapes ``(seed,)``.
        draws: of signs; independent for each setting. One setting uses all signs if seeds are few.
    """
    strata: Sequence[int | None] = [None] if len(differences) == 1 else range(len(differences))
    means = []
    for stratum, of_setting in zip(strata, differences, strict=True):
        seeds = len(of_setting)
        means.append(draws.signs(seeds, stratum) @ of_setting / seeds)
    return float(two_sided_p(np.mean(means, axis=0)))


def _probability_of_improvement(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: Draws
) -> Estimate:
    """Compute the probability that a run of the first arm is lower than one of the second.

    Args:
        pairs: complete scores of both arms in each setting.
        draws: of seeds.
    """
    wins = []  # of each setting, shapes (seed, seed)
    for first, second in pairs:
        is_lower = first[:, None] < second
        is_equal = first[:, None] == second
        wins.append(is_lower + is_equal / 2)
    seeds = min(len(of_setting) for of_setting in wins)
    value = float(np.mean([of_setting.mean() for of_setting in wins]))
    if seeds < MIN_BOOTSTRAP_SEEDS:
        return Estimate(value, note=NO_INTERVAL)
    if len(wins) == 1:

        def statistic(counts: np.ndarray) -> np.ndarray:
            weighted_wins = ((counts @ wins[0]) * counts).sum(axis=-1)
            return np.asarray((weighted_wins / counts.sum(axis=-1) ** 2)[:, None])

        low, high = bca(statistic, seeds, draws)
        return Estimate(value, low.item(), high.item(), BCA)
    resampled = []
    for stratum, of_setting in enumerate(wins):
        counts = draws.counts(len(of_setting), stratum)
        weighted_wins = ((counts @ of_setting) * counts).sum(axis=-1)
        resampled.append(weighted_wins / len(of_setting) ** 2)
    return _stratified(value, resampled, seeds)


def _resampled_means(values: Sequence[np.ndarray], draws: Draws) -> list[np.ndarray]:
    """Average over the seeds of each resample, in each setting.

    Args:
        values: of each setting, shapes ``(seed, …)``.
        draws: of seeds.

    Returns:
        Shapes ``(draw, …)``.
    """
    means = []
    for stratum, of_setting in enumerate(values):
        seeds = len(of_setting)
        means.append(draws.counts(seeds, stratum) @ of_setting / seeds)
    return means


def _stratified(value: float, resampled: Sequence[np.ndarray], seeds: int) -> Estimate:
    """Add the percentile interval of the mean over settings that are resampled independently.

    Args:
        value: the estimate.
        resampled: of each setting, shapes ``(draw,)``.
        seeds: the smallest number of seeds of a setting.
    """
    if seeds < MIN_BOOTSTRAP_SEEDS:
        return Estimate(value, note=NO_INTERVAL)
    low, high = np.quantile(np.mean(resampled, axis=0), TAILS)
    return Estimate(value, float(low), float(high), STRATIFIED)
