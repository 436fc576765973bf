"""Does the measure move before the error does? Three questions of the innovations, and one of the series themselves.

A measure is taken at a task's start, its outcome is what the task ends with: at lag 0 the measure already comes first. Innovations are
first differences of deviations from the arm's mean curve, so that neither a shared trend nor a slow drift leads or lags. Cross-correlation
assumes exchangeable seeds; Granger's regressions are compared to those of mismatched seeds, too; change points that a series has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.statistics.null_models import FEWEST, crossed, innovations, standardised
from plasticity.statistics.panels import Batch, Panel
from plasticity.statistics.resampling import ROUND_OFF, Draws, extreme, interval, matching

FEWEST_TASKS = 12  # fewer have no lags to tell apart
LAGS = 5
ORDER = 2  # of Granger's regressions
COLUMNS = [
    "setting",
    "arm",
    "outcome",
    "measure",
    "evaluation_point",
    "block",
    "question",
    "lag",
    "band",
    "lower_quartile",
    "upper_quartile",
    "estimate",
    "low",
    "high",
    "p",
    "seeds",
    "tasks",
    "interval",
]
Found = dict[str, np.ndarray | str]


def lead_lag(panels: Sequence[Panel], draws: Draws) -> pd.DataFrame:
    """What comes first, for every explanation, outcome and arm.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        One row per question. `cross_correlation`: the lag (in measured tasks; positive: the measure precedes) at which innovations
        correlate most, mean over seeds, beside ±``band``, the simultaneous 95 % band of mismatched seeds. `measure_first`,
        `outcome_first`: mean Wald statistic of Granger's test over seeds, beside mismatched ones. `change_point`: by how many tasks the
        measure's change comes before the outcome's, mean over seeds, with quartiles.
    """
    rows = []
    for panel in (panel.explanations() for panel in panels):
        for arm, name in enumerate(panel.arms):
            for batch in panel.batches(arm):
                rows += [
                    {"setting": panel.setting, "arm": name, **row}
                    for row in _rows(batch, panel.outcomes, draws)
                ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "note"])


def _rows(batch: Batch, outcomes: Sequence[str], draws: Draws) -> Iterator[dict[str, object]]:
    """The rows of a batch."""
    seeds, tasks = batch.x.shape[1:]
    few = seeds < FEWEST or tasks < FEWEST_TASKS
    constant = (np.ptp(batch.x, axis=-1) == 0).any(axis=-1)[:, None] | (
        np.ptp(batch.y, axis=-1) == 0
    ).any(axis=-1)
    questions = ("cross_correlation", "measure_first", "outcome_first", "change_point")
    found: dict[str, Found] = (
        {question: {} for question in questions}
        if few
        else asked(batch.x, batch.y, batch.tasks, draws)
    )
    for m, key in enumerate(batch.keys):
        for o, outcome in enumerate(outcomes):
            missing = "too few" if few else "constant" if constant[m, o] else ""
            for question, numbers in found.items():
                values = {
                    name: np.nan if missing else of[m, o]
                    for name, of in numbers.items()
                    if isinstance(of, np.ndarray)
                }
                row = asdict(key) | {
                    "outcome": outcome,
                    "question": question,
                    "seeds": seeds,
                    "tasks": tasks,
                }
                row |= dict.fromkeys(
                    (
                        "lag",
                        "band",
                        "lower_quartile",
                        "upper_quartile",
                        "estimate",
                        "low",
                        "high",
                        "p",
                    ),
                    np.nan,
                )
                if not np.isnan(values.get("estimate", np.nan)):
                    row |= values
                else:
                    missing = missing or "constant"
                how = numbers.get("interval", "") if np.isfinite(float(row["low"])) else ""
                yield row | {
                    "interval": how,
                    "note": "; ".join(filter(None, [batch.note, missing])),
                }


def asked(x: np.ndarray, y: np.ndarray, tasks: np.ndarray, draws: Draws) -> dict[str, Found]:
    """The four questions' numbers, shapes ``(measure, outcome)``.

    Args:
        x: measures, shape ``(measure, seed, task)``.
        y: outcomes, shape ``(outcome, seed, task)``.
        tasks: index of each.
        draws: of seeds.
    """
    moves, responses = innovations(x), innovations(y)
    first = granger(moves, responses, current=True)
    second = granger(responses, moves, current=False).transpose(1, 0, 3, 2)
    earlier = (tasks[change_points(y)][None] - tasks[change_points(x)][:, None]).astype(float)
    low, high, how = interval(earlier, draws)
    signs = draws.signs(earlier.shape[-1])
    p = extreme(np.tensordot(signs, earlier, axes=(1, -1)) / len(signs[0]))
    quartiles = dict(
        zip(
            ("lower_quartile", "upper_quartile"),
            np.quantile(earlier, [0.25, 0.75], axis=-1),
            strict=True,
        )
    )
    lag = np.full(p.shape, float(ORDER))
    return {
        "cross_correlation": cross_correlation(moves, responses, draws),
        "measure_first": {"lag": lag, **_of_matched(first, draws)},
        "outcome_first": {"lag": lag, **_of_matched(second, draws)},
        "change_point": {
            "estimate": earlier.mean(axis=-1),
            **quartiles,
            "low": low,
            "high": high,
            "p": p,
            "interval": how,
        },
    }


def cross_correlation(x: np.ndarray, y: np.ndarray, draws: Draws) -> Found:
    """The lag of the largest mean cross-correlation of ranks, and how that compares to the largest of mismatched seeds.

    Args:
        x: innovations of measures, shape ``(measure, seed, task)``.
        y: of outcomes, shape ``(outcome, seed, task)``.
        draws: of seeds.

    Returns:
        ``lag, band, estimate, p``, shapes ``(measure, outcome)``: in 95 of 100 permutations no lag leaves ±band.
    """
    seeds, tasks = x.shape[1:]
    x, y = stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)
    lags = np.arange(-min(LAGS, tasks // 3), min(LAGS, tasks // 3) + 1)
    chosen = matching(seeds, draws)
    found = []
    for lag in lags:
        early, late = slice(0, tasks - abs(lag)), slice(abs(lag), tasks)
        pairs = crossed(
            standardised(x[..., early if lag >= 0 else late]),
            standardised(y[..., late if lag >= 0 else early]),
        )
        excess = (pairs - pairs.mean(axis=(-2, -1), keepdims=True)).reshape(-1, seeds**2) @ chosen.T
        found.append((np.diagonal(pairs, axis1=-2, axis2=-1).mean(axis=-1).ravel(), excess))
    means, drawn = np.array([mean for mean, _ in found]), np.abs([excess for _, excess in found])
    largest, place = drawn.max(axis=0), drawn[..., 0].argmax(axis=0)
    band = np.quantile(largest, 0.95, axis=-1)
    shape = (len(x), len(y))
    p = (largest >= largest[:, :1] - ROUND_OFF).mean(axis=-1)
    values = {
        "lag": lags[place].astype(float),
        "band": band,
        "estimate": means[place, np.arange(len(place))],
        "p": p,
    }
    return {name: of.reshape(shape) for name, of in values.items()}


def granger(causes: np.ndarray, responses: np.ndarray, current: bool) -> np.ndarray:
    """Wald statistics: whether a cause's last two values help to predict a response beside its own last two, for all pairs of seeds.

    A difference of white noise is no autoregression of any order, so a table of chi squared would find causes that are none; mismatched
    seeds are the reference instead. By Frisch and Waugh, all pairs are a few products of matrices.

    Args:
        causes: shape ``(cause, seed, task)``.
        responses: shape ``(response, seed, task)``.
        current: whether a cause is known before the response of the same task.

    Returns:
        Shape ``(cause, response, seed of the cause, seed of the response)``; NaN where a regression has no unique answer.
    """
    tasks, offset = responses.shape[-1], 0 if current else 1

    def lagged(values: np.ndarray, lag: int) -> np.ndarray:
        return values[..., ORDER + 1 - lag : tasks - lag]

    target, x = (
        lagged(responses, 0),
        np.stack([lagged(causes, lag) for lag in range(offset, ORDER + offset)], axis=-1),
    )
    own = np.linalg.qr(
        np.stack(
            [np.ones_like(target), *(lagged(responses, lag) for lag in range(1, ORDER + 1))],
            axis=-1,
        )
    )[0]
    left = target - (own @ (np.swapaxes(own, -1, -2) @ target[..., None]))[..., 0]
    explained = np.tensordot(x, own, axes=(2, 2)).transpose(
        0, 3, 1, 4, 2, 5
    )  # (cause, response, seed, seed, lag, column)
    b = np.tensordot(x, left, axes=(2, 2)).transpose(0, 3, 1, 4, 2)
    gram = (np.swapaxes(x, -1, -2) @ x)[:, None, :, None] - explained @ np.swapaxes(
        explained, -1, -2
    )
    determinant = gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1] ** 2
    unique = determinant > ROUND_OFF * gram[..., 0, 0] * gram[..., 1, 1]
    gain = (
        b[..., 0] ** 2 * gram[..., 1, 1]
        - 2 * b[..., 0] * b[..., 1] * gram[..., 0, 1]
        + b[..., 1] ** 2 * gram[..., 0, 0]
    )
    gain = gain / np.where(unique, determinant, np.nan)
    rest = (left**2).sum(axis=-1)[None, :, None] - gain
    return np.asarray(gain / np.where(rest > 0, rest, np.nan) * (target.shape[-1] - 1 - 2 * ORDER))


def _of_matched(wald: np.ndarray, draws: Draws) -> Found:
    """Mean over matched seeds, and the share of permutations of seeds whose mean is as large: ``estimate, p``."""
    seeds = wald.shape[-1]
    means = matching(seeds, draws) @ wald.reshape(-1, seeds**2).T
    p = np.where(np.isfinite(means[0]), (means >= means[0] * (1 - ROUND_OFF)).mean(axis=0), np.nan)
    return {"estimate": means[0].reshape(wald.shape[:2]), "p": p.reshape(wald.shape[:2])}


def change_points(values: np.ndarray) -> np.ndarray:
    """Place at which a single change of mean fits the ranks of a series best: shape ``(…, task)`` → ``(…)``, from 1."""
    ranks = stats.rankdata(values, axis=-1)
    sums = (ranks - ranks.mean(axis=-1, keepdims=True)).cumsum(axis=-1)[..., :-1]
    before = np.arange(1, values.shape[-1])
    return np.asarray((sums**2 / (before * (values.shape[-1] - before))).argmax(axis=-1) + 1)
