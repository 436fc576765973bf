"""Does the measure move before the error does? Three questions of the innovations, and one of the series themselves.

A measure is taken at a task's start, its outcome is what the task ends with: at lag 0 the measure already comes first. Innovations are first differences
of deviations from the arm's mean curve, so that neither a shared trend nor a slow drift leads or lags. Cross-correlation assumes exchangeable seeds;
Granger's regressions that two lags are enough; change points that a series has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.statistics.panels import Batch, Panel
from plasticity.statistics.resampling import ROUND_OFF, Draws, extreme, interval
from plasticity.statistics.trends import FEWEST, crossed, dependent, innovations, standardised

FEWEST_TASKS = 12  # fewer have no lags to tell apart
LAGS = 5
ORDER = 2  # of Granger's regressions
COLUMNS = [
    "setting",
    "arm",
    "outcome",
    "measure",
    "moment",
    "block",
    "question",
    "lag",
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
        One row per question. `cross_correlation`: the lag (in measured tasks; positive: the measure precedes) at which innovations correlate most, mean
        over seeds, beside the simultaneous 95 % band of mismatched seeds. `measure_first`, `outcome_first`: mean Wald statistic of Granger's test over
        seeds. `change_point`: by how many tasks the measure's change comes before the outcome's, mean over seeds, with the quartiles in the note.
    """
    rows = []
    for panel in (panel.explanations() for panel in panels):
        for arm, name in enumerate(panel.arms):
            for batch in panel.batches(arm):
                rows += [{"setting": panel.setting, "arm": name, **row} for row in _rows(batch, panel.outcomes, draws)]
    return pd.DataFrame(rows, columns=[*COLUMNS, "note"])


def _rows(batch: Batch, outcomes: Sequence[str], draws: Draws) -> Iterator[dict[str, object]]:
    """The rows of a batch."""
    seeds, tasks = batch.x.shape[1:]
    few = seeds < FEWEST or tasks < FEWEST_TASKS
    constant = (np.ptp(batch.x, axis=-1) == 0).any(axis=-1)[:, None] | (np.ptp(batch.y, axis=-1) == 0).any(axis=-1)
    questions = ("cross_correlation", "measure_first", "outcome_first", "change_point")
    found: dict[str, Found] = dict.fromkeys(questions, {}) if few else asked(batch.x, batch.y, batch.tasks, draws)
    for m, key in enumerate(batch.keys):
        for o, outcome in enumerate(outcomes):
            missing = "too few" if few else "constant" if constant[m, o] else ""
            for question, numbers in found.items():
                values = {name: np.nan if missing else of[m, o] for name, of in numbers.items() if isinstance(of, np.ndarray)}
                row = asdict(key) | {"outcome": outcome, "question": question, "seeds": seeds, "tasks": tasks}
                row |= dict.fromkeys(("lag", "estimate", "low", "high", "p"), np.nan)
                if not np.isnan(values.get("estimate", np.nan)):
                    row |= values
                else:
                    missing = missing or "constant"
                how = numbers.get("interval", "") if np.isfinite(float(row["low"])) else ""
                yield row | {"interval": how, "note": "; ".join(filter(None, [batch.note, missing]))}


def asked(x: np.ndarray, y: np.ndarray, tasks: np.ndarray, draws: Draws) -> dict[str, Found]:
    """The four questions' numbers, shapes ``(measure, outcome)``.

    Args:
        x: measures, shape ``(measure, seed, task)``.
        y: outcomes, shape ``(outcome, seed, task)``.
        tasks: index of each.
        draws: of seeds.
    """
    moves, responses = innovations(x), innovations(y)
    first = granger(responses[None], moves[:, None], current=True)
    second = granger(moves[:, None], responses[None], current=False)
    earlier = (tasks[change_points(y)][None] - tasks[change_points(x)][:, None]).astype(float)
    low, high, how = interval(earlier, draws)
    signs = draws.signs(earlier.shape[-1])
    p = extreme(np.tensordot(signs, earlier, axes=(1, -1)) / len(signs[0]))
    lag = np.full(p.shape, float(ORDER))
    return {
        "cross_correlation": cross_correlation(moves, responses, draws),
        "measure_first": {"lag": lag, "estimate": first.mean(axis=-1), "p": combined(first, ORDER, moves.shape[-1] - ORDER)},
        "outcome_first": {"lag": lag, "estimate": second.mean(axis=-1), "p": combined(second, ORDER, moves.shape[-1] - ORDER)},
        "change_point": {"estimate": earlier.mean(axis=-1), "low": low, "high": high, "p": p, "interval": how},
    }


def cross_correlation(x: np.ndarray, y: np.ndarray, draws: Draws) -> Found:
    """The lag of the largest mean cross-correlation of ranks, and how that compares to the largest of mismatched seeds.

    Args:
        x: innovations of measures, shape ``(measure, seed, task)``.
        y: of outcomes, shape ``(outcome, seed, task)``.
        draws: of seeds.

    Returns:
        ``lag, estimate, low, high, p``, shapes ``(measure, outcome)``: low and high bound the simultaneous band around 0.
    """
    seeds, tasks = x.shape[1:]
    x, y = stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)
    lags = np.arange(-min(LAGS, tasks // 3), min(LAGS, tasks // 3) + 1)
    orders = draws.permutations(seeds)
    chosen = np.zeros((len(orders), seeds, seeds))
    chosen[np.arange(len(orders))[:, None], np.arange(seeds), orders] = 1 / seeds
    chosen = chosen.reshape(len(orders), -1)
    means = []
    for lag in lags:
        early, late = slice(0, tasks - abs(lag)), slice(abs(lag), tasks)
        pairs = crossed(standardised(x[..., early if lag >= 0 else late]), standardised(y[..., late if lag >= 0 else early]))
        means.append((pairs - pairs.mean(axis=(-2, -1), keepdims=True)).reshape(-1, seeds**2) @ chosen.T)
        own = np.diagonal(pairs, axis1=-2, axis2=-1).mean(axis=-1)
        means[-1] = np.concatenate([own.reshape(-1, 1), means[-1]], axis=1)
    found = np.array(means)  # (lag, pair, the estimate and all draws)
    largest = np.abs(found[..., 1:]).max(axis=0)
    place = np.abs(found[..., 1]).argmax(axis=0)
    band = np.quantile(largest, 0.95, axis=-1)
    shape = (len(x), len(y))
    p = (largest >= largest[:, :1] - ROUND_OFF).mean(axis=-1)
    values = {"lag": lags[place].astype(float), "estimate": found[place, np.arange(len(place)), 0], "low": -band, "high": band, "p": p}
    return {name: of.reshape(shape) for name, of in values.items()} | {"interval": "simultaneous band of mismatched seeds"}


def granger(responses: np.ndarray, causes: np.ndarray, current: bool) -> np.ndarray:
    """Wald statistic of each run: whether the causes' last values help to predict a response beside its own last `ORDER`.

    Args:
        responses: shape ``(…, seed, task)``.
        causes: the same, or one that broadcasts with it.
        current: whether a cause is known before the response of the same task.

    Returns:
        Shape ``(…, seed)``.
    """
    responses, causes = np.broadcast_arrays(responses, causes)
    tasks, offset = responses.shape[-1], 0 if current else 1

    def lagged(values: np.ndarray, lag: int) -> np.ndarray:
        return values[..., ORDER + 1 - lag : tasks - lag]

    own = [np.ones_like(lagged(responses, 0)), *(lagged(responses, lag) for lag in range(1, ORDER + 1))]
    design = np.stack([*own, *(lagged(causes, lag) for lag in range(offset, ORDER + offset))], axis=-1)
    target = lagged(responses, 0)[..., None]
    few = _residual(design[..., : len(own)], target)
    all_of = _residual(design, target)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(all_of > ROUND_OFF * few, (few - all_of) / all_of * (target.shape[-2] - design.shape[-1]), np.nan)


def _residual(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sum of squares that least squares leaves, by a projection on the design's columns."""
    basis = np.linalg.qr(design)[0]
    return np.asarray(((target - basis @ (np.swapaxes(basis, -1, -2) @ target)) ** 2).sum(axis=(-2, -1)))


def combined(wald: np.ndarray, order: int, tasks: int) -> np.ndarray:
    """p of the mean Wald statistic over seeds, after Dumitrescu and Hurlin 2012, for few tasks (their equation 33); seeds are dependent as `trends` says.

    Args:
        wald: shape ``(…, seed)``.
        order: restrictions of each.
        tasks: that each regression predicts.
    """
    freedom = tasks - 1 - 2 * order - 1
    mean = order * freedom / (freedom - 2)
    variance = 2 * order * freedom**2 * (order + freedom - 2) / ((freedom - 2) ** 2 * (freedom - 4))
    seeds = wald.shape[-1]
    z = (wald.mean(axis=-1) - mean) / np.sqrt(variance / seeds) / dependent(seeds)
    return np.asarray(stats.norm.sf(z))


def change_points(values: np.ndarray) -> np.ndarray:
    """Place at which a single change of mean fits the ranks of a series best: shape ``(…, task)`` → ``(…)``, from 1."""
    ranks = stats.rankdata(values, axis=-1)
    sums = (ranks - ranks.mean(axis=-1, keepdims=True)).cumsum(axis=-1)[..., :-1]
    before = np.arange(1, values.shape[-1])
    return np.asarray((sums**2 / (before * (values.shape[-1] - before))).argmax(axis=-1) + 1)
