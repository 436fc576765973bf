"""Association of every measure with every outcome, at four levels that are never mixed, and what is left of it beside nulls.

A measure is taken at a task's start, its outcome is what the task ends with. *Within a run*: correlation over its tasks, mean over seeds.
*Between
runs*: correlation over an arm's seeds of means over tasks. *Between arms*: correlation over a setting's arms of means over seeds and tasks.
*Pooled*: slope of a mixed model over all runs of a setting, with a fixed effect for every arm and task, random intercepts and slopes per
run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.models import BASELINE
from plasticity.statistics import mixed_model
from plasticity.statistics.null_models import (
    FEWEST,
    NULLS,
    dependent,
    deviations,
    matched,
    nulls,
    ranked,
    standardised,
)
from plasticity.statistics.panels import FEWEST_TASKS, Batch, Key, Panel
from plasticity.statistics.resampling import (
    BCA,
    FEWEST_SEEDS,
    ROUND_OFF,
    UNEVEN,
    Draws,
    Statistic,
    bca,
    interval,
    permutation_test,
)

KEYS = ["setting", "level", "arm", "outcome", "measure", "evaluation_point", "block"]
NUMBERS = ["estimate", "low", "high", "pearson", "pearson_low", "pearson_high", "p"]
FEWEST_ARMS = 4  # a correlation over fewer says nothing
Row = dict[str, object]
Transform = Callable[[np.ndarray], np.ndarray]


def associations(panels: Sequence[Panel], draws: Draws) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables: associations at every level, and those within runs beside every null.

    Args:
        panels: the settings.
        draws: of seeds.

    Returns:
        Of the first, one row per level, arm (where the level has one), outcome and measure (within runs: every variant of it): Spearman's
        correlation (of the pooled level the slope in standard deviations) as ``estimate``, Pearson's beside it, both with intervals over
        seeds, ``p`` (within runs that of mismatched seeds), ``seeds, tasks, interval, note``. Of the second, the same of each null of
        `trends.NULLS`.
    """
    rows: list[Row] = []
    beside: list[Row] = []
    for panel in panels:
        explained = panel.explanations()
        for arm, name in enumerate(panel.arms):
            where: Row = {"setting": panel.setting, "arm": name}
            for batch in panel.batches(arm):
                rows += [
                    {"level": "within_run", **where, **row}
                    for row in _within(batch, panel.outcomes, draws, where, beside)
                ]
            for batch in explained.batches(arm):
                rows += [
                    {"level": "between_runs", **where, **row}
                    for row in _between_runs(batch, panel.outcomes, draws)
                ]
        rows += [
            {"level": "between_arms", "setting": panel.setting, "arm": "", **row}
            for row in _between_arms(explained, draws)
        ]
        rows += [
            {"level": "pooled", "setting": panel.setting, "arm": "", **row}
            for row in _pooled(explained)
        ]
    columns = [*KEYS, *NUMBERS, "seeds", "tasks", "interval", "note"]
    of_nulls = [
        "setting",
        "arm",
        "outcome",
        "measure",
        "evaluation_point",
        "block",
        "null",
        "estimate",
        "low",
        "high",
        "p",
    ]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(
        beside, columns=[*of_nulls, "seeds", "tasks", "interval", "note"]
    )


def _within(
    batch: Batch, outcomes: Sequence[str], draws: Draws, where: Row, beside: list[Row]
) -> Iterator[Row]:
    """Correlations over tasks, means over seeds; those beside nulls go into `beside`."""
    seeds, tasks = batch.x.shape[1:]
    if tasks < FEWEST_TASKS or not seeds:
        few = list(_rows(batch, outcomes, {}, "", ["too few tasks" if seeds else "too few seeds"]))
        beside += [{**where, "null": null, **row} for null in NULLS for row in few]
        yield from few
        return
    spearman, pearson = (matched(of(batch.x), of(batch.y)) for of in (ranked, standardised))
    (low, high, how), (pearson_low, pearson_high, _) = (
        interval(values, draws) for values in (spearman, pearson)
    )
    tested = nulls(batch.x, batch.y, draws) if seeds >= FEWEST else {}
    means = {"estimate": spearman.mean(axis=-1), "low": low, "high": high}
    means |= {
        "pearson": pearson.mean(axis=-1),
        "pearson_low": pearson_low,
        "pearson_high": pearson_high,
    }
    numbers = {name: np.clip(values, -1, 1) for name, values in means.items()}
    notes = (
        [batch.note]
        + ["too few seeds for a null"] * (not tested)
        + ["too few seeds for an interval"] * (not how)
    )
    yield from _rows(
        batch, outcomes, numbers | ({"p": tested["mismatched"]["p"]} if tested else {}), how, notes
    )
    for null in NULLS:
        found = {
            name: values
            for name, values in tested.get(null, {}).items()
            if isinstance(values, np.ndarray)
        }
        said = [batch.note] + ["too few seeds"] * (not tested)
        beside += [
            {**where, "null": null, **row} for row in _rows(batch, outcomes, found, how, said)
        ]


def _between_runs(batch: Batch, outcomes: Sequence[str], draws: Draws) -> Iterator[Row]:
    """Correlations over an arm's seeds of means over the measured tasks."""
    seeds = len(batch.seeds)
    if seeds < FEWEST_SEEDS:
        yield from _rows(batch, outcomes, {}, "", [batch.note, "too few seeds"])
        return
    x, y = batch.x.mean(axis=-1), batch.y.mean(axis=-1)
    numbers: dict[str, np.ndarray] = {}
    for name, rank in (("estimate", True), ("pearson", False)):
        statistic = _over_seeds(x, y, rank)
        low, high = bca(statistic, seeds, draws)
        prefix = "" if rank else "pearson_"
        found = {
            name: statistic(np.ones((1, seeds)))[0],
            f"{prefix}low": low,
            f"{prefix}high": high,
        }
        numbers |= {
            key: np.clip(values, -1, 1).reshape(len(x), len(y)) for key, values in found.items()
        }
    first, second = ranked(x), ranked(y)
    numbers["p"] = permutation_test(first[:, None, :, None] * second[None, :, None, :], draws)
    yield from _rows(batch, outcomes, numbers, BCA, [batch.note])


def _over_seeds(x: np.ndarray, y: np.ndarray, rank: bool) -> Statistic:
    """Correlations over seeds as a function of how often each counts: of values, or of mean ranks among the seeds that are drawn.

    Args:
        x: shape ``(measure, seed)``.
        y: shape ``(outcome, seed)``.
        rank: whether Spearman's.
    """

    def placed(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Shape ``(series, draw, seed)``: in each draw centred, and weighted to unit norm."""
        if rank:
            below = (values[:, :, None] < values[:, None, :]) + (
                values[:, :, None] == values[:, None, :]
            ) / 2
            values = counts @ below
        else:
            values = np.repeat(values[:, None], len(counts), axis=1)
        values = values - ((values * counts).sum(axis=-1) / counts.sum(axis=-1))[..., None]
        norms = np.sqrt((counts * values**2).sum(axis=-1, keepdims=True))
        return np.asarray(
            values
            * np.sqrt(counts)
            / np.where(norms <= 1e-12 * (1 + abs(values).max()), np.nan, norms)
        )

    def statistic(counts: np.ndarray) -> np.ndarray:
        products = np.einsum("mds,ods->dmo", placed(x, counts), placed(y, counts), optimize=False)
        return np.asarray(products.reshape(len(counts), -1))

    return statistic


def _between_arms(panel: Panel, draws: Draws) -> Iterator[Row]:
    """Correlations over the arms of means over seeds and tasks, for the measures that at least `FEWEST_ARMS` arms have.

    Seeds that diverged in one of these arms are left out of all.
    """
    groups: dict[tuple[bytes, bytes], list[tuple[int, np.ndarray]]] = {}
    for place, there in enumerate(np.isfinite(panel.measures)):
        arms, tasks = there.any(axis=(1, 2)), there.any(axis=(0, 1))
        if not tasks.any():
            continue
        groups.setdefault((arms.tobytes(), tasks.tobytes()), []).append(
            (place, there[arms][:, :, tasks].all(axis=(0, 2)))
        )
    for (arms_held, tasks_held), members in groups.items():
        arms, tasks = (
            np.flatnonzero(np.frombuffer(held, bool)) for held in (arms_held, tasks_held)
        )
        places = [place for place, _ in members]
        y = panel.values[:, arms][..., tasks]
        alive = np.isfinite(y).all(axis=(0, 1, 3)) & np.all([whole for _, whole in members], axis=0)
        x, y = (
            panel.measures[places][:, arms][:, :, alive][..., tasks].mean(axis=-1),
            y[:, :, alive].mean(axis=-1),
        )
        batch = Batch(
            [panel.keys[place] for place in places], x, y, np.flatnonzero(alive), tasks, len(alive)
        )
        if len(arms) < FEWEST_ARMS or not alive.any():
            yield from _rows(
                batch,
                panel.outcomes,
                {},
                "",
                [batch.note, "too few arms" if alive.any() else "too few seeds"],
            )
            continue
        numbers: dict[str, np.ndarray] = {}
        for name, of, prefix in (("estimate", ranked, ""), ("pearson", standardised, "pearson_")):

            def statistic(
                counts: np.ndarray, x: np.ndarray = x, y: np.ndarray = y, of: Transform = of
            ) -> np.ndarray:
                means = (
                    np.moveaxis(values @ counts.T, 1, -1) / counts.sum(axis=1)[:, None]
                    for values in (x, y)
                )
                products = np.einsum(
                    "mda,oda->dmo", *(of(values) for values in means), optimize=False
                )
                return np.asarray(products.reshape(len(counts), -1))

            estimate, (low, high) = (
                statistic(np.ones((1, len(batch.seeds))))[0],
                bca(statistic, len(batch.seeds), draws),
            )
            found = {name: estimate, f"{prefix}low": low, f"{prefix}high": high}
            numbers |= {key: values.reshape(len(x), -1) for key, values in found.items()}
        first, second = (ranked(values.mean(axis=-1)) for values in (x, y))
        numbers["p"] = permutation_test(first[:, None, :, None] * second[None, :, None, :], draws)
        few = len(batch.seeds) < FEWEST_SEEDS
        yield from _rows(
            batch,
            panel.outcomes,
            numbers,
            "" if few else BCA,
            [batch.note] + ["too few seeds for an interval"] * few,
        )


def _pooled(panel: Panel) -> Iterator[Row]:
    """Slopes of the mixed model: of deviations from each arm's mean curve, which is its fixed effect of arm and task.

    A fresh network per task is no run that keeps learning: it is left out.
    """
    together: dict[tuple[Key, bytes], list[tuple[Batch, int]]] = {}
    for arm in (arm for arm, name in enumerate(panel.arms) if name != BASELINE):
        for batch in panel.batches(arm):
            for place, key in enumerate(batch.keys):
                together.setdefault((key, batch.tasks.tobytes()), []).append((batch, place))
    for (key, _), arms in together.items():
        kept = [(batch, place) for batch, place in arms if len(batch.seeds) >= FEWEST]
        first = replace(arms[0][0], keys=[key])
        if not kept or len(first.tasks) < FEWEST_TASKS:
            yield from _rows(first, panel.outcomes, {}, "", ["too few"])
            continue
        numbers = pooled(
            [batch.x[place : place + 1] for batch, place in kept], [batch.y for batch, _ in kept]
        )
        runs, out = (
            sum(numbers)
            for numbers in zip(
                *((len(b.seeds), b.runs - len(b.seeds)) for b, _ in kept), strict=True
            )
        )
        note = f"{out} diverged or with gaps" if out else ""
        yield from _rows(first, panel.outcomes, numbers, "REML, Student's t", [note], runs=runs)


def pooled(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The mixed model's slope, in standard deviations of what is left of both without each arm's mean curve.

    Args:
        x: of each arm, shape ``(measure, seed, task)``.
        y: of each arm, shape ``(outcome, seed, task)``.

    Returns:
        ``estimate, low, high, p``, each of shape ``(measure, outcome)``.
    """
    apart = [np.concatenate([deviations(values) for values in arms], axis=1) for arms in (x, y)]
    spreads = [values.std(axis=(1, 2), keepdims=True) for values in apart]
    fit = mixed_model.slopes(
        *(
            values / np.where(spread > ROUND_OFF, spread, np.nan)
            for values, spread in zip(apart, spreads, strict=True)
        )
    )
    freedom, error = (
        apart[0].shape[1] - len(x),
        fit.error * dependent(min(values.shape[1] for values in x)),
    )
    reach = stats.t.ppf(0.975, freedom) * error
    p = 2 * stats.t.sf(abs(fit.estimate) / error, freedom)
    return {
        "estimate": fit.estimate,
        "low": fit.estimate - reach,
        "high": fit.estimate + reach,
        "p": p,
    }


def _rows(
    batch: Batch,
    outcomes: Sequence[str],
    numbers: dict[str, np.ndarray],
    how: str,
    notes: Sequence[str],
    runs: int | None = None,
) -> Iterator[Row]:
    """A row for each measure and outcome; one without an estimate says why."""
    said = "; ".join(filter(None, notes))
    for place, key in enumerate(batch.keys):
        for outcome, name in enumerate(outcomes):
            values = {number: float(all_of[place, outcome]) for number, all_of in numbers.items()}
            missing = numbers and np.isnan(values["estimate"])
            uneven = how == BCA and not missing and np.isnan(values["low"])
            row = asdict(key) | {"outcome": name} | (dict.fromkeys(NUMBERS, np.nan) | values)
            if missing:
                row |= dict.fromkeys(NUMBERS, np.nan)
            yield row | {
                "seeds": runs or len(batch.seeds),
                "tasks": len(batch.tasks),
                "interval": how if np.isfinite(row["low"]) else "",
                "note": "; ".join(
                    filter(None, [said, "constant" if missing else "", UNEVEN if uneven else ""])
                ),
            }
