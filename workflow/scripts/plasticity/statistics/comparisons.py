"""Comparing methods, after Agarwal et al. 2021 (arXiv 2108.13264): paired by seed, with stratified bootstrap intervals. Lower is better."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.models import BASELINE
from plasticity.statistics.panels import Panel
from plasticity.statistics.resampling import BCA, FEWEST_SEEDS, Draws, bca, extreme, interval
from plasticity.training.outcomes import stages

STAGES = ("late", "all")
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
    "seeds",
    "tasks",
    "interval",
    "note",
]
STRATIFIED = "stratified bootstrap over seeds"
THRESHOLDS = {"error": np.linspace(0, 1, 21), "gap": np.linspace(-0.5, 0.5, 21)}
Row = dict[str, object]


def comparisons(
    panels: Sequence[Panel], draws: Draws, declared: Collection[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Every arm by itself, versus `none` and versus a fresh network, in each setting and over all that have both.

    Args:
        panels: the settings.
        draws: of seeds.
        declared: pairs of other arms, the first versus the second.

    Returns:
        One row per setting (or `all`), arm, outcome, stage and statistic: `mean` and `interquartile_mean` of an arm; versus another
        `mean_difference` (arm less the other, paired by seed; p by flips of signs) and `probability_of_improvement` (that a run of the arm
        has the lower outcome). Scores are means over the tasks of the stage; a run that diverged has none.
    """
    rows: list[Row] = []
    outcomes = dict.fromkeys(outcome for panel in panels for outcome in panel.outcomes)
    for outcome in outcomes:
        for stage in STAGES:
            scores = {
                panel.setting: _scores(panel, outcome, stage)
                for panel in panels
                if outcome in panel.outcomes
            }
            places = [*([name] for name in scores), *([list(scores)] if len(scores) > 1 else [])]
            tasks = {panel.setting: _window(panel, stage) for panel in panels}
            for settings in places:
                held = [scores[name] for name in settings]
                arms = [arm for arm in held[0] if all(arm in one for one in held)]
                where: Row = {
                    "setting": settings[0] if len(settings) == 1 else "all",
                    "outcome": outcome,
                    "stage": stage,
                }
                where["tasks"] = min(tasks[name] for name in settings)
                for arm in arms:
                    rows += [
                        {**where, "arm": arm, "versus": "", **row}
                        for row in _alone([one[arm] for one in held], draws)
                    ]
                    for versus in (
                        other for other in arms if (arm, other) in declared or _is_usual(arm, other)
                    ):
                        pairs = [(one[arm], one[versus]) for one in held]
                        rows += [
                            {**where, "arm": arm, "versus": versus, **row}
                            for row in _paired(pairs, draws)
                        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def profiles(panels: Sequence[Panel], draws: Draws) -> pd.DataFrame:
    """Performance profiles over all settings: the share of runs whose outcome, late, is at most a threshold.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        One row per arm that every setting has, outcome and threshold, with pointwise intervals.
    """
    rows: list[Row] = []
    for outcome in dict.fromkeys(outcome for panel in panels for outcome in panel.outcomes):
        scores = [_scores(panel, outcome, "late") for panel in panels if outcome in panel.outcomes]
        for arm in (arm for arm in scores[0] if all(arm in one for one in scores)):
            runs = [one[arm][np.isfinite(one[arm])] for one in scores]
            thresholds = THRESHOLDS["gap" if outcome.endswith("gap") else "error"]
            if not all(map(len, runs)):
                continue
            below = [(one[:, None] <= thresholds + 1e-12).astype(float) for one in runs]
            drawn = np.mean(
                [draws.counts(len(one), place) @ one / len(one) for place, one in enumerate(below)],
                axis=0,
            )
            low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
            few = min(map(len, runs)) < FEWEST_SEEDS
            for place, threshold in enumerate(thresholds):
                rows.append(
                    {
                        "arm": arm,
                        "outcome": outcome,
                        "threshold": round(float(threshold), 6),
                        "estimate": np.mean([one[:, place].mean() for one in below]),
                        "low": np.nan if few else low[place],
                        "high": np.nan if few else high[place],
                        "seeds": min(map(len, runs)),
                        "settings": len(runs),
                        "interval": "" if few else STRATIFIED,
                        "note": "too few seeds for an interval" if few else "",
                    }
                )
    columns = [
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
    return pd.DataFrame(rows, columns=columns)


def _is_usual(arm: str, versus: str) -> bool:
    """Whether an arm is compared to another without being asked."""
    return arm not in (versus, BASELINE) and versus in ("none", BASELINE)


def _window(panel: Panel, stage: str) -> int:
    """How many tasks a stage has."""
    window = stages(panel.values.shape[-1])[stage]
    return int(window.stop - window.start)


def _scores(panel: Panel, outcome: str, stage: str) -> dict[str, np.ndarray]:
    """Of each arm, the score of each seed; NaN where it diverged."""
    values = panel.values[panel.outcomes.index(outcome)]
    whole = np.where(
        np.isfinite(values).all(axis=-1),
        values[..., stages(values.shape[-1])[stage]].mean(axis=-1),
        np.nan,
    )
    return dict(zip(panel.arms, whole, strict=True))


def _alone(scores: Sequence[np.ndarray], draws: Draws) -> Iterator[Row]:
    """Mean and interquartile mean of an arm's runs in some settings, each setting resampled by itself."""
    runs = [one[np.isfinite(one)] for one in scores]
    out = sum(map(len, scores)) - sum(map(len, runs))
    seeds = min(map(len, runs))
    for statistic, cut in (("mean", 0.0), ("interquartile_mean", 0.25)):
        row: Row = {"statistic": statistic, "seeds": seeds, "p": np.nan}
        if not seeds:
            yield row | _numbers(np.nan, np.nan, np.nan, "", out, "every seed diverged")
            continue
        estimate = float(stats.trim_mean(np.concatenate(runs), cut))
        if seeds < FEWEST_SEEDS:
            yield row | _numbers(estimate, np.nan, np.nan, "", out, "too few seeds for an interval")
            continue
        places = [draws.places(len(one), stratum) for stratum, one in enumerate(runs)]
        drawn = stats.trim_mean(
            np.concatenate([one[place] for one, place in zip(runs, places, strict=True)], axis=1),
            cut,
            axis=1,
        )
        low, high = np.quantile(drawn, [0.025, 0.975])
        yield row | _numbers(estimate, low, high, STRATIFIED, out)


def _paired(pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: Draws) -> Iterator[Row]:
    """An arm versus another in some settings, by the seeds that both have."""
    both = [np.isfinite(one) & np.isfinite(other) for one, other in pairs]
    kept = [(one[there], other[there]) for (one, other), there in zip(pairs, both, strict=True)]
    out = sum(len(there) - int(there.sum()) for there in both)
    seeds = min(len(one) for one, _ in kept)
    if not seeds:
        for statistic in ("mean_difference", "probability_of_improvement"):
            yield {"statistic": statistic, "seeds": 0, "p": np.nan} | _numbers(
                np.nan, np.nan, np.nan, "", out, "no seed has both"
            )
        return
    differences = [one - other for one, other in kept]
    estimate = float(np.mean([one.mean() for one in differences]))
    strata = (
        [None] if len(kept) == 1 else range(len(kept))
    )  # one setting has all signs there are, of few seeds
    p = float(
        extreme(
            np.mean(
                [
                    draws.signs(len(one), stratum) @ one / len(one)
                    for stratum, one in zip(strata, differences, strict=True)
                ],
                axis=0,
            )
        )
    )
    least = 2 / 2 ** sum(map(len, differences))
    if len(kept) == 1:
        low, high, how = _single(interval(differences[0], draws))
    else:
        low, high, how = _stratified(
            [
                draws.counts(len(one), stratum) @ one / len(one)
                for stratum, one in enumerate(differences)
            ],
            seeds,
        )
    note = f"the smallest p possible is {least:g}" if least > 0.05 else ""
    yield {
        "statistic": "mean_difference",
        "seeds": seeds,
        "p": p if seeds > 1 else np.nan,
    } | _numbers(estimate, low, high, how, out, note if how else "too few seeds for an interval")
    wins = [(one[:, None] < other) + (one[:, None] == other) / 2 for one, other in kept]
    improved = float(np.mean([one.mean() for one in wins]))
    low, high, how = np.nan, np.nan, ""
    if seeds >= FEWEST_SEEDS and len(wins) == 1:
        found = bca(
            lambda counts: (((counts @ wins[0]) * counts).sum(axis=-1) / counts.sum(axis=-1) ** 2)[
                :, None
            ],
            seeds,
            draws,
        )
        low, high, how = _single((*found, BCA))
    elif seeds >= FEWEST_SEEDS:
        counts = [draws.counts(len(one), stratum) for stratum, one in enumerate(wins)]
        low, high, how = _stratified(
            [
                ((c @ one) * c).sum(axis=-1) / len(one) ** 2
                for c, one in zip(counts, wins, strict=True)
            ],
            seeds,
        )
    yield {"statistic": "probability_of_improvement", "seeds": seeds, "p": np.nan} | _numbers(
        improved, low, high, how, out, "" if how else "too few seeds for an interval"
    )


def _single(found: tuple[np.ndarray, np.ndarray, str]) -> tuple[float, float, str]:
    """The interval of one number."""
    low, high, how = found
    return low.item(), high.item(), how


def _stratified(drawn: Sequence[np.ndarray], seeds: int) -> tuple[float, float, str]:
    """Percentile interval of the mean over settings that are resampled each by itself; none for few seeds."""
    if seeds < FEWEST_SEEDS:
        return np.nan, np.nan, ""
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return float(low), float(high), STRATIFIED


def _numbers(estimate: float, low: object, high: object, how: str, out: int, note: str = "") -> Row:
    """The numbers of a row, and what a reader must know of them."""
    notes = filter(None, [f"{out} diverged or with gaps" if out else "", note])
    return {
        "estimate": estimate,
        "low": low,
        "high": high,
        "interval": how,
        "note": "; ".join(notes),
    }
