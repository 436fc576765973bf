"""Lead and lag: does a measure change before the outcome does?

A measure is taken at the start of a task and its outcome at the end, so at lag 0 the measure
already comes first. Three questions are asked of innovations, the first differences of deviations
from the arm's mean curve, in which neither a shared trend nor a slow drift can lead or lag. The
fourth, change points, is asked of the series themselves. Cross-correlations and Granger's
regressions are compared with those of mismatched seeds, which assumes exchangeable seeds. Change
points assume one change per series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.statistics import power
from plasticity.statistics.estimate import Estimate, Numbers, Row, join_notes
from plasticity.statistics.null_models import (
    MIN_SEEDS,
    crossed_correlations,
    innovations,
    standardize,
)
from plasticity.statistics.resampling import (
    CONFIDENCE,
    ROUND_OFF,
    Draws,
    interval,
    matching_weights,
    two_sided_p,
)
from plasticity.statistics.setting_arrays import CompleteSeries, SettingArrays

MIN_TASKS = 12  # shorter series do not tell lags apart
MAX_LAG = 5
ORDER = 2  # number of lags in Granger's regressions
QUESTIONS = ("cross_correlation", "measure_first", "outcome_first", "change_point")
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
    "power",
    "seeds",
    "tasks",
    "interval",
    "note",
]


@dataclass(frozen=True)
class Answer:
    """The answer to one question, for all pairs of a measure and an outcome.

    All numbers have shape ``(measure, outcome)``, or are NaN if the question does not have them.

    Attributes:
        estimate: with its interval and its test.
        lag: in measured tasks; positive if the measure comes first.
        band: half the width of the simultaneous 95 % band of mismatched seeds.
        lower_quartile: over seeds.
        upper_quartile: over seeds.
    """

    estimate: Estimate
    lag: Numbers = np.nan
    band: Numbers = np.nan
    lower_quartile: Numbers = np.nan
    upper_quartile: Numbers = np.nan


def lead_lag(settings: Sequence[SettingArrays], draws: Draws, relevant: float) -> pd.DataFrame:
    """Answer four questions for every explanation, outcome and arm.

    Args:
        settings: arrays of all settings.
        draws: of seeds.
        relevant: correlation of innovations whose power is computed.

    Returns:
        One row per question. Only cross-correlations have a power, because the other estimates are
        no correlations:

        - `cross_correlation`: the lag with the largest cross-correlation of innovations, mean over
          seeds, and ``band``. A positive lag, in measured tasks, means that the measure comes
          first.
        - `measure_first`, `outcome_first`: the Wald statistic of Granger's test, mean over seeds.
        - `change_point`: by how many tasks the measure changes before the outcome, mean over seeds,
          with quartiles.
    """
    rows = []
    for arrays in settings:
        explanations = arrays.explanations()
        for arm, name in enumerate(arrays.arms):
            keys: Row = {"setting": arrays.setting, "arm": name}
            for series in explanations.complete_series(arm):
                rows += [
                    {**keys, **row} for row in _rows(series, arrays.outcome_names, draws, relevant)
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    series: CompleteSeries, outcome_names: Sequence[str], draws: Draws, relevant: float
) -> Iterator[Row]:
    """Build a row for each measure, outcome and question."""
    has_few = len(series.seeds) < MIN_SEEDS or len(series.tasks) < MIN_TASKS
    answers: dict[str, Answer] = {}
    if not has_few:
        answers = answer_questions(series.x, series.y, series.tasks, draws, relevant)
    x_is_constant = (np.ptp(series.x, axis=-1) == 0).any(axis=-1)
    y_is_constant = (np.ptp(series.y, axis=-1) == 0).any(axis=-1)
    for m, variant in enumerate(series.variants):
        for o, outcome in enumerate(outcome_names):
            is_missing = has_few or x_is_constant[m] or y_is_constant[o]
            for question in QUESTIONS:
                # A series that is too constant for one question is so for those after it: what a
                # regression then explains is round-off.
                is_missing = is_missing or np.isnan(answers[question].estimate.at(m, o).value)
                if is_missing:
                    answer = Answer(Estimate(note="too few" if has_few else "constant"))
                else:
                    answer = answers[question]
                yield {
                    **asdict(variant),
                    "outcome": outcome,
                    "question": question,
                    **_number_columns(answer, m, o, series.note),
                    "seeds": len(series.seeds),
                    "tasks": len(series.tasks),
                }


def _number_columns(answer: Answer, m: int, o: int, note: str) -> Row:
    """Build the columns with the numbers of measure m and outcome o, and with the note."""
    estimate = answer.estimate.at(m, o)
    estimate = replace(
        estimate,
        method=estimate.method if np.isfinite(estimate.low) else "",
        note=join_notes(note, estimate.note),
    )
    others = {
        "lag": answer.lag,
        "band": answer.band,
        "lower_quartile": answer.lower_quartile,
        "upper_quartile": answer.upper_quartile,
    }
    return {**estimate.row(), **{name: Estimate(of).at(m, o).value for name, of in others.items()}}


def answer_questions(
    x: np.ndarray, y: np.ndarray, tasks: np.ndarray, draws: Draws, relevant: float
) -> dict[str, Answer]:
    """Answer each of `QUESTIONS`.

    Args:
        x: measures, shape ``(measure, seed, task)``.
        y: outcomes, shape ``(outcome, seed, task)``.
        tasks: index of each measured task.
        draws: of seeds.
        relevant: see `lead_lag`.
    """
    x_innovations = innovations(x)
    y_innovations = innovations(y)
    measure_first = granger_statistics(x_innovations, y_innovations, current=True)
    outcome_first = granger_statistics(y_innovations, x_innovations, current=False)
    outcome_first = outcome_first.transpose(1, 0, 3, 2)
    return {
        "cross_correlation": cross_correlation(x_innovations, y_innovations, draws, relevant),
        "measure_first": _granger_test(measure_first, draws),
        "outcome_first": _granger_test(outcome_first, draws),
        "change_point": _compare_change_points(x, y, tasks, draws),
    }


def cross_correlation(x: np.ndarray, y: np.ndarray, draws: Draws, relevant: float) -> Answer:
    """Find the lag of the largest mean cross-correlation of ranks.

    The largest is compared with that of mismatched seeds: in 95 of 100 permutations of seeds, no
    lag leaves ±band. Power is that of a correlation at one lag, whose null distribution has the
    mean spread of those of all lags.

    Args:
        x: innovations of measures, shape ``(measure, seed, task)``.
        y: innovations of outcomes, shape ``(outcome, seed, task)``.
        draws: of seeds.
        relevant: see `lead_lag`.
    """
    seeds, tasks = x.shape[1:]
    shape = (len(x), len(y))
    x = stats.rankdata(x, axis=-1)
    y = stats.rankdata(y, axis=-1)
    weights = matching_weights(seeds, draws)
    max_lag = min(MAX_LAG, tasks // 3)
    lags = np.arange(-max_lag, max_lag + 1)
    means_by_lag = []
    excess_by_lag = []
    for lag in lags:
        early = slice(0, tasks - abs(lag))
        late = slice(abs(lag), tasks)
        x_lagged = standardize(x[..., early if lag >= 0 else late])
        y_lagged = standardize(y[..., early if lag < 0 else late])
        pairs = crossed_correlations(x_lagged, y_lagged)
        centred = pairs - pairs.mean(axis=(-2, -1), keepdims=True)
        means_by_lag.append(np.diagonal(pairs, axis1=-2, axis2=-1).mean(axis=-1).ravel())
        excess_by_lag.append(centred.reshape(-1, seeds**2) @ weights.T)
    means = np.array(means_by_lag)  # (lag, pair)
    excess = np.array(excess_by_lag)  # (lag, pair, draw)
    sizes = np.abs(excess)
    largest = sizes.max(axis=0)
    best = sizes[..., 0].argmax(axis=0)
    p = (largest >= largest[:, :1] - ROUND_OFF).mean(axis=-1)
    critical = power.critical_value(largest.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = stats.norm.sf((critical - relevant) / excess.std(axis=-1).mean(axis=0))
    estimate = Estimate(
        means[best, np.arange(len(best))].reshape(shape),
        p=p.reshape(shape),
        power=found.reshape(shape),
    )
    return Answer(
        estimate,
        lag=lags[best].astype(float).reshape(shape),
        band=np.quantile(largest, CONFIDENCE, axis=-1).reshape(shape),
    )


def granger_statistics(causes: np.ndarray, responses: np.ndarray, current: bool) -> np.ndarray:
    """Compute the Wald statistics of Granger's test for all pairs of seeds.

    They measure whether the last two values of a cause help to predict a response, given the last
    two values of the response. A difference of white noise is no autoregression of finite order, so
    a χ² table would find causes where there are none. Mismatched seeds are the reference instead.
    By the theorem of Frisch and Waugh, all pairs need only a few matrix products.

    Args:
        causes: shape ``(cause, seed, task)``.
        responses: shape ``(response, seed, task)``.
        current: whether a cause is known before the response of the same task.

    Returns:
        Shape ``(cause, response, seed of the cause, seed of the response)``; NaN where a regression
        has no unique solution.
    """
    tasks = responses.shape[-1]
    first_lag = 0 if current else 1

    def lagged(values: np.ndarray, lag: int) -> np.ndarray:
        return values[..., ORDER + 1 - lag : tasks - lag]

    target = lagged(responses, 0)
    own_lags = [lagged(responses, lag) for lag in range(1, ORDER + 1)]
    cause_lags = [lagged(causes, lag) for lag in range(first_lag, ORDER + first_lag)]
    own_design = np.stack([np.ones_like(target), *own_lags], axis=-1)
    x = np.stack(cause_lags, axis=-1)  # (cause, seed, task, lag)

    # Project the target and the lags of the cause off the response's own lags.
    basis = np.linalg.qr(own_design)[0]  # (response, seed, task, column)
    fitted = basis @ (np.swapaxes(basis, -1, -2) @ target[..., None])
    residual = target - fitted[..., 0]
    # (cause, response, seed, seed, lag, column)
    explained = np.tensordot(x, basis, axes=(2, 2)).transpose(0, 3, 1, 4, 2, 5)
    b = np.tensordot(x, residual, axes=(2, 2)).transpose(0, 3, 1, 4, 2)
    total_gram = (np.swapaxes(x, -1, -2) @ x)[:, None, :, None]
    gram = total_gram - explained @ np.swapaxes(explained, -1, -2)

    # Solve the regressions on two lags in closed form.
    determinant = gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1] ** 2
    is_unique = determinant > ROUND_OFF * gram[..., 0, 0] * gram[..., 1, 1]
    gain = (
        b[..., 0] ** 2 * gram[..., 1, 1]
        - 2 * b[..., 0] * b[..., 1] * gram[..., 0, 1]
        + b[..., 1] ** 2 * gram[..., 0, 0]
    )
    gain = gain / np.where(is_unique, determinant, np.nan)
    unexplained = (residual**2).sum(axis=-1)[None, :, None] - gain
    freedom = target.shape[-1] - 1 - 2 * ORDER
    return np.asarray(gain / np.where(unexplained > 0, unexplained, np.nan) * freedom)


def _granger_test(wald: np.ndarray, draws: Draws) -> Answer:
    """Compare the mean Wald statistic of matched seeds with those of permuted seeds: one-sided p.

    Args:
        wald: shape ``(measure, outcome, seed, seed)``.
        draws: of permutations.
    """
    seeds = wald.shape[-1]
    shape = wald.shape[:2]
    means = matching_weights(seeds, draws) @ wald.reshape(-1, seeds**2).T
    share = (means >= means[0] * (1 - ROUND_OFF)).mean(axis=0)
    p = np.where(np.isfinite(means[0]), share, np.nan)
    estimate = Estimate(means[0].reshape(shape), p=p.reshape(shape))
    return Answer(estimate, lag=np.full(shape, float(ORDER)))


def _compare_change_points(x: np.ndarray, y: np.ndarray, tasks: np.ndarray, draws: Draws) -> Answer:
    """Compute by how many tasks a measure changes before an outcome.

    Args:
        x: measures, shape ``(measure, seed, task)``.
        y: outcomes, shape ``(outcome, seed, task)``.
        tasks: index of each measured task.
        draws: of seeds.
    """
    x_changes = tasks[change_points(x)][:, None]
    y_changes = tasks[change_points(y)][None]
    lead = (y_changes - x_changes).astype(float)  # (measure, outcome, seed)
    low, high, method = interval(lead, draws)
    signs = draws.signs(lead.shape[-1])
    p = two_sided_p(np.tensordot(signs, lead, axes=(1, -1)) / len(signs[0]))
    lower_quartile, upper_quartile = np.quantile(lead, [0.25, 0.75], axis=-1)
    return Answer(
        Estimate(lead.mean(axis=-1), low, high, method, p),
        lower_quartile=lower_quartile,
        upper_quartile=upper_quartile,
    )


def change_points(values: np.ndarray) -> np.ndarray:
    """Find where a single change of the mean fits the ranks of a series best.

    Args:
        values: shape ``(…, task)``.

    Returns:
        Index of the first task after the change, at least 1, shape ``(…)``.
    """
    tasks = values.shape[-1]
    ranks = stats.rankdata(values, axis=-1)
    sums = (ranks - ranks.mean(axis=-1, keepdims=True)).cumsum(axis=-1)[..., :-1]
    before = np.arange(1, tasks)
    gain = sums**2 / (before * (tasks - before))
    return np.asarray(gain.argmax(axis=-1) + 1)
