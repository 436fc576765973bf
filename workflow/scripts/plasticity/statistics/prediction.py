"""How well a measure at a task's start ranks checkpoints by the error to come, what curvature adds, whether its operators are one thing.

Checkpoints are compared within a setting and a task, across arms and seeds, so that no trend over tasks can help. All numbers here come
from sums over pairs of checkpoints, kept per pair of seeds: a resample of seeds weighs those sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.statistics.null_models import FEWEST, dependent, deviations, ranked
from plasticity.statistics.panels import FEWEST_TASKS, Panel
from plasticity.statistics.resampling import (
    BCA,
    FEWEST_SEEDS,
    UNEVEN,
    Draws,
    Statistic,
    bca,
    interval,
)

BASELINE = ("weight_norm", "feature_rank", "dead_fraction")  # what curvature must add to
RANK = "_effective_rank"  # how the measures end that stand for an operator
COLUMNS = [
    "setting",
    "outcome",
    "measure",
    "statistic",
    "estimate",
    "low",
    "high",
    "seeds",
    "tasks",
    "interval",
    "note",
]
Row = dict[str, object]


@dataclass(frozen=True)
class Pairs:
    """Sums over tasks and pairs of checkpoints, per pair of their seeds, shapes ``(seed, seed)``.

    Attributes:
        agreeing: of sign(difference of scores) · sign(difference of outcomes).
        scored: of the squares of the first sign, which is 0 for a tie.
        differing: of the squares of the second.
        seeds: how many there are.
        tasks: how many tasks.
        runs: (arm, seed) that are compared.
    """

    agreeing: np.ndarray
    scored: np.ndarray
    differing: np.ndarray
    tasks: int

    def tau(self, counts: np.ndarray) -> np.ndarray:
        """Kendall's τ-b over the pairs of all tasks, of each draw."""
        agreeing, scored, differing = (
            _weighed(sums, counts) for sums in (self.agreeing, self.scored, self.differing)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(scored * differing > 0, agreeing / np.sqrt(scored * differing), np.nan)

    def auc(self, counts: np.ndarray) -> np.ndarray:
        """Probability that of two checkpoints the one with the greater error to come has the greater score; half of a tie."""
        agreeing, differing = (_weighed(sums, counts) for sums in (self.agreeing, self.differing))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(differing > 0, (1 + agreeing / differing) / 2, np.nan)


def _weighed(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums per pair of seeds as a resample has them."""
    return np.asarray(((counts @ sums) * counts).sum(axis=-1))


@dataclass(frozen=True)
class Checkpoints:
    """The runs of a setting with all of some measures, at the tasks where they were taken.

    Attributes:
        scores: of the measures, shape ``(measure, task, run)``.
        outcomes: shape ``(outcome, task, run)``.
        seeds: of each run, as places from 0.
    """

    scores: np.ndarray
    outcomes: np.ndarray
    seeds: np.ndarray


def checkpoints(panel: Panel, measures: Sequence[str]) -> Checkpoints | None:
    """What is to be ranked; None where the setting lacks a measure, or has too few seeds, tasks or runs."""
    places = {key.measure: place for place, key in enumerate(panel.keys)}
    if not set(measures) <= set(places):
        return None
    values = panel.measures[[places[name] for name in measures]]
    tasks = np.isfinite(values).any(axis=(1, 2)).all(axis=0)
    whole = np.isfinite(values[..., tasks]).all(axis=(0, 3)) & np.isfinite(panel.values).all(
        axis=(0, 3)
    )
    arms, seeds = np.nonzero(whole)
    if tasks.sum() < FEWEST_TASKS or len(np.unique(seeds)) < 2 or len(arms) < 4:
        return None
    scores, outcomes = (
        of[:, arms, seeds][..., tasks].transpose(0, 2, 1) for of in (values, panel.values)
    )
    return Checkpoints(scores, outcomes, np.unique(seeds, return_inverse=True)[1])


def pairs(scores: np.ndarray, outcomes: np.ndarray, seeds: np.ndarray) -> Iterator[Pairs]:
    """The sums of one score with each outcome.

    Args:
        scores: shape ``(task, run)``.
        outcomes: signs of differences, shape ``(outcome, task, run, run)``, int8.
        seeds: of each run, as places from 0.
    """
    of_seed = (seeds[:, None] == np.arange(seeds.max() + 1)).astype(np.float64)

    def per_seed(sums: np.ndarray) -> np.ndarray:
        return np.asarray(of_seed.T @ sums @ of_seed)

    own = signs(scores)
    scored = per_seed(_summed(own, own))
    for outcome in outcomes:
        yield Pairs(
            per_seed(_summed(own, outcome)),
            scored,
            per_seed(_summed(outcome, outcome)),
            len(scores),
        )


def _summed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products of signs, summed over tasks: by as many as fit into eight bits, which makes it several times as fast."""
    total = np.zeros(first.shape[1:])
    for start in range(0, len(first), 127):
        few = np.zeros(first.shape[1:], np.int8)
        for one, other in zip(first[start : start + 127], second[start : start + 127], strict=True):
            few += one * other
        total += few
    return total


def signs(values: np.ndarray) -> np.ndarray:
    """Of differences along the last axis: shape ``(…, run)`` → ``(…, run, run)``, int8."""
    ranks = stats.rankdata(values, axis=-1, method="dense").astype(
        np.min_scalar_type(values.shape[-1])
    )
    greater, less = (
        ranks[..., :, None] > ranks[..., None, :],
        ranks[..., :, None] < ranks[..., None, :],
    )
    return np.asarray(greater.view(np.int8) - less.view(np.int8))


def prediction(panels: Sequence[Panel], draws: Draws) -> pd.DataFrame:
    """Kendall's τ and AUC of every explanation, in each setting and over settings, and what curvature adds to `BASELINE`.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        One row per setting (`all`: mean over settings), outcome, measure and statistic. `kendall_tau` and `auc` have the sign of the
        measure; `auc_left_out` takes the direction from the other settings. Of nested models, least squares on ranks within a task, fitted
        in the other settings: `auc_left_out` of the baseline and of the baseline with an operator, and their difference, `added`.
        Intervals over seeds.
    """
    explained = [panel.explanations() for panel in panels]
    rows = list(_alone(explained, draws)) + list(_nested(explained, draws))
    return pd.DataFrame(rows, columns=COLUMNS)


def _alone(panels: Sequence[Panel], draws: Draws) -> Iterator[Row]:
    """Every measure by itself."""
    found: dict[tuple[str, str], dict[str, tuple[Pairs, int]]] = {}
    for panel in panels:
        held: dict[
            tuple[bytes, bytes], np.ndarray
        ] = {}  # pairs of outcomes are the same for measures with the same runs and tasks
        for key in panel.keys:
            if (taken := checkpoints(panel, [key.measure])) is None:
                continue
            same = (taken.outcomes.tobytes(), taken.seeds.tobytes())
            if same not in held:
                held = {same: signs(taken.outcomes)}
            for outcome, sums in zip(
                panel.outcomes, pairs(taken.scores[0], held[same], taken.seeds), strict=True
            ):
                found.setdefault((outcome, key.measure), {})[panel.setting] = (
                    sums,
                    len(sums.agreeing),
                )
    for (outcome, measure), settings in found.items():
        once = {
            name: float(sums.auc(np.ones((1, seeds)))[0]) - 0.5
            for name, (sums, seeds) in settings.items()
        }
        by_statistic: dict[str, list[float]] = {}
        for name, (sums, seeds) in settings.items():
            others = [
                once[other] for other in settings if other != name and np.isfinite(once[other])
            ]
            direction = np.sign(sum(others)) if others else np.nan

            def left_out(
                counts: np.ndarray, sums: Pairs = sums, direction: float = direction
            ) -> np.ndarray:
                return np.asarray(0.5 + direction * (sums.auc(counts) - 0.5))

            statistics: dict[str, Statistic] = {
                "kendall_tau": sums.tau,
                "auc": sums.auc,
                "auc_left_out": left_out,
            }
            for statistic, of in statistics.items():
                row = _row(
                    of,
                    seeds,
                    draws,
                    "one setting" if statistic == "auc_left_out" and not others else "constant",
                )
                by_statistic.setdefault(statistic, []).append(float(row["estimate"]))  # type: ignore[arg-type]
                yield {
                    "setting": name,
                    "outcome": outcome,
                    "measure": measure,
                    "statistic": statistic,
                    **row,
                    "tasks": sums.tasks,
                }
        for statistic, values in by_statistic.items():
            yield {
                "setting": "all",
                "outcome": outcome,
                "measure": measure,
                "statistic": statistic,
                **_over_settings(values),
            }


def _row(statistic: Statistic, seeds: int, draws: Draws, without: str) -> Row:
    """An estimate with its interval over seeds; `without` is what to say if there is none."""
    estimate = statistic(np.ones((1, seeds)))
    low, high = bca(lambda counts: statistic(counts)[:, None], seeds, draws)
    how = BCA if np.isfinite(low[0]) else ""
    why = "too few seeds for an interval" if seeds < FEWEST_SEEDS else "" if how else UNEVEN
    note = why if np.isfinite(estimate[0]) else without
    return {
        "estimate": float(estimate[0]),
        "low": float(low[0]),
        "high": float(high[0]),
        "seeds": seeds,
        "interval": how,
        "note": note,
    }


def _over_settings(values: Sequence[float]) -> Row:
    """Mean over settings, with Student's t interval: what to expect of settings like these."""
    known = np.array([value for value in values if np.isfinite(value)])
    few = len(known) < 3
    low, high = (
        (np.nan, np.nan)
        if few
        else stats.t.interval(0.95, len(known) - 1, known.mean(), max(stats.sem(known), 1e-12))
    )
    note = "; ".join(["too few settings for an interval"] * few + [f"of {len(known)} settings"])
    estimate = known.mean() if len(known) else np.nan
    return {
        "estimate": estimate,
        "low": low,
        "high": high,
        "interval": "" if few else "Student's t over settings",
        "note": note,
    }


def _nested(panels: Sequence[Panel], draws: Draws) -> Iterator[Row]:
    """The baseline, and the baseline with each operator, at the tasks where both were measured; fitted in all settings but one."""
    operators = sorted(
        {key.measure for panel in panels for key in panel.keys if key.measure.endswith(RANK)}
    )
    for operator in operators:
        names = [*BASELINE, operator]
        there = {
            panel.setting: (panel, taken)
            for panel in panels
            if (taken := checkpoints(panel, names)) is not None
        }
        if len(there) < 2:
            continue
        ranks = {name: _centred(taken.scores) for name, (_, taken) in there.items()}
        added: dict[str, list[float]] = {}
        for name, (panel, taken) in there.items():
            differences = signs(taken.outcomes)
            seeds = int(taken.seeds.max()) + 1
            for o, outcome in enumerate(panel.outcomes):
                sums = []
                for features in (slice(0, len(BASELINE)), slice(None)):
                    grams, targets = np.zeros(()), np.zeros(())
                    for other, (_, held) in there.items():
                        if other != name:
                            x, y = (
                                ranks[other][features].reshape(len(ranks[other][features]), -1),
                                _centred(held.outcomes[o]).ravel(),
                            )
                            grams, targets = grams + x @ x.T / y.size, targets + x @ y / y.size
                    weights = np.linalg.lstsq(grams, targets, rcond=1e-9)[0]
                    score = np.tensordot(weights, ranks[name][features], axes=1)
                    sums.append(next(pairs(score, differences[o : o + 1], taken.seeds)))
                both = " + ".join(names)
                few = {" + ".join(BASELINE): sums[0].auc, both: sums[1].auc}
                base = {"setting": name, "outcome": outcome, "tasks": len(taken.scores[0])}
                for measure, statistic in few.items():
                    yield {
                        **base,
                        "measure": measure,
                        "statistic": "auc_left_out",
                        **_row(statistic, seeds, draws, "constant"),
                    }

                def gain(counts: np.ndarray, sums: Sequence[Pairs] = tuple(sums)) -> np.ndarray:
                    return np.asarray(sums[1].auc(counts) - sums[0].auc(counts))

                row = _row(gain, seeds, draws, "constant")
                added.setdefault(outcome, []).append(float(row["estimate"]))  # type: ignore[arg-type]
                yield {**base, "measure": both, "statistic": "added", **row}
        for outcome, values in added.items():
            yield {
                "setting": "all",
                "outcome": outcome,
                "measure": " + ".join(names),
                "statistic": "added",
                **_over_settings(values),
            }


def _centred(values: np.ndarray) -> np.ndarray:
    """Ranks among the checkpoints of a task, from −1 to 1; 0 where all are equal. The last axis is that of runs."""
    runs = values.shape[-1]
    return np.asarray((2 * stats.rankdata(values, axis=-1) - runs - 1) / (runs - 1))


def redundancy(panels: Sequence[Panel], draws: Draws) -> pd.DataFrame:
    """How far operators' ranks and the feature rank are the same thing: their correlations within runs, arm `none`, in each setting.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        One row per setting, pair of ranks and association: Spearman's correlation over the tasks where both were measured, mean over seeds
        with an interval; `task` of deviations from the mean curve, `within_run` of the series as they are.
    """
    rows: list[Row] = []
    for panel in (panel.explanations() for panel in panels if "none" in panel.arms):
        arm = panel.arms.index("none")
        places = {
            key.measure: place
            for place, key in enumerate(panel.keys)
            if key.measure.endswith(RANK) or key.measure == "feature_rank"
        }
        alive = np.isfinite(panel.values[:, arm]).all(axis=(0, 2))
        for first, second in ((a, b) for a in places for b in places if a < b):
            x, y = (panel.measures[places[name], arm][alive] for name in (first, second))
            tasks = (np.isfinite(x) & np.isfinite(y)).any(axis=0)
            x, y = x[:, tasks], y[:, tasks]
            kept = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
            for association, of in (("within_run", np.asarray), ("task", deviations)):
                row: Row = {
                    "setting": panel.setting,
                    "first": first,
                    "second": second,
                    "association": association,
                }
                row |= {
                    "estimate": np.nan,
                    "low": np.nan,
                    "high": np.nan,
                    "seeds": int(kept.sum()),
                    "tasks": int(tasks.sum()),
                    "interval": "",
                }
                if tasks.sum() < FEWEST_TASKS or kept.sum() < (
                    FEWEST if association == "task" else 1
                ):
                    rows.append(row | {"note": "too few"})
                    continue
                per_seed = (ranked(of(x[kept])) * ranked(of(y[kept]))).sum(axis=-1)
                low, high, how = interval(per_seed, draws)
                wider = dependent(len(per_seed)) if association == "task" else 1.0
                estimate = per_seed.mean()
                row |= {
                    "estimate": estimate,
                    "low": estimate - wider * (estimate - low),
                    "high": estimate + wider * (high - estimate),
                }
                note = (
                    "constant"
                    if np.isnan(estimate)
                    else ""
                    if how
                    else "too few seeds for an interval"
                )
                rows.append(row | {"interval": how if np.isfinite(low) else "", "note": note})
    columns = [
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
    return pd.DataFrame(rows, columns=columns)
