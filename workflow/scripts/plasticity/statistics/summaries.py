"""Means of outcomes and measures of each arm, early and late, with intervals over seeds.

Both are averaged over the same tasks. The first task, which starts with an untrained network, is in
neither mean: it has a row of its own.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from plasticity.config.quantities import EXPLANATION, is_rank, split_operator
from plasticity.statistics.estimate import Estimate, Row, join_notes
from plasticity.statistics.resampling import t_interval
from plasticity.training.outcomes import LOWER_IS_BETTER, stage_masks, stages

TUNING_COLUMNS = [
    "setting",
    "method",
    "arm",
    "hyperparameters",
    "outcome",
    "stage",
    "criterion",
    "mean",
    "low",
    "high",
    "seeds",
    "tasks",
    "chosen",
    "note",
]
MEASURE_COLUMNS = [
    "setting",
    "arm",
    "measure",
    "evaluation_point",
    "block",
    "stage",
    "mean",
    "low",
    "high",
    "seeds",
    "tasks",
    "note",
]
NEAR_LIMIT = 0.9  # a rank above this share of its limit cannot rise much, whatever happens
NO_MEASURES = ("_error", "_margin", "_limit")  # endings of other variables with one per block
OUTCOMES = tuple(outcome for name in LOWER_IS_BETTER for outcome in (name, f"{name}_gap"))


@dataclass(frozen=True)
class StageMean:
    """The mean over the tasks of a stage and over seeds.

    Attributes:
        stage: one of `stages`, `first` for the first task alone, or `change` from early to late.
        estimate: the mean with its interval over seeds.
        seeds: number of seeds.
        tasks: number of tasks.
    """

    stage: str
    estimate: Estimate
    seeds: int
    tasks: int

    def row(self) -> Row:
        """Build the columns of a table that hold this mean."""
        return {
            "stage": self.stage,
            "mean": self.estimate.value,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "seeds": self.seeds,
            "tasks": self.tasks,
            "note": self.estimate.note,
        }


def outcomes(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Average the outcomes of every arm: early, late, over all tasks, and the change.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting, arm, outcome and stage, with the columns of `StageMean`.
    """
    rows = []
    for setting, data in datasets.items():
        names = [name for name in OUTCOMES if name in data]
        for arm in data.arm.values:
            for outcome in names:
                values = data[outcome].sel(arm=arm).values
                keys: Row = {"setting": setting, "arm": arm, "outcome": outcome}
                tasks = values.shape[1]
                means = stage_means(values, range(tasks), tasks)
                rows += [{**keys, **mean.row()} for mean in means]
    return pd.DataFrame(rows)


def summary(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Summarize every arm in one row: final error, its gap to the baseline, and ranks of curvature.

    Ranks are those of the whole network on the next task's data.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting and arm. Each number has the columns ``{name}_{stage}``,
        ``{name}_{stage}_low`` and ``{name}_{stage}_high`` for the stages early and late. Ranks are
        missing if curvature was only taken on the previous task's data.
    """
    rows = []
    for setting, data in datasets.items():
        numbers = {name: data[name] for name in ("final_error", "final_error_gap")} | _ranks(data)
        for arm in data.arm.values:
            row: Row = {"setting": setting, "arm": arm}
            for name, values in numbers.items():
                of_arm = values.sel(arm=arm).transpose("seed", "task")
                row |= _early_and_late(name, of_arm.dropna("task", how="all"), data.sizes["task"])
            rows.append(row)
    return pd.DataFrame(rows)


def _ranks(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Select the ranks of the whole network on the next task's data."""
    if EXPLANATION["evaluation_point"] not in data.evaluation_point:
        return {}
    ranks = {}
    for name in map(str, data):
        if is_rank(name):
            ranks[name] = data[name].sel(EXPLANATION)
    return ranks


def _early_and_late(name: str, values: xr.DataArray, tasks: int) -> Row:
    """Build the columns of one number in the summary.

    Args:
        name: of the number.
        values: at the measured tasks, dims ``(seed, task)``.
        tasks: number of tasks of the runs.
    """
    row: Row = {}
    means = stage_means(values.values, values.task.values, tasks)
    estimates = {mean.stage: mean.estimate for mean in means}
    for stage in ("early", "late"):
        column = f"{name}_{stage}"
        estimate = estimates.get(stage, Estimate())
        row[column] = estimate.value
        row[f"{column}_low"] = estimate.low
        row[f"{column}_high"] = estimate.high
    return row


def measures(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Average the measures of every arm: early, late, over all tasks, and the change.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting, arm, measure, evaluation point, block and stage, with the columns of
        `StageMean`.
    """
    rows = []
    for setting, data in datasets.items():
        tasks = data.task.values
        for variant, measure in series(data):
            limits = _rank_limits(data, variant)
            for arm, values, limit in zip(data.arm.values, measure.values, limits, strict=True):
                is_measured = ~np.isnan(values).all(axis=0)
                keys: Row = {"setting": setting, "arm": arm, **variant}
                for mean in stage_means(values[:, is_measured], tasks[is_measured], len(tasks)):
                    near_limit = mean.estimate.value > NEAR_LIMIT * limit
                    note = f"near the largest possible rank, {limit:.0f}" if near_limit else ""
                    flagged = replace(mean.estimate, note=join_notes(mean.estimate.note, note))
                    rows.append({**keys, **replace(mean, estimate=flagged).row()})
    return pd.DataFrame(rows, columns=MEASURE_COLUMNS)


def _rank_limits(data: xr.Dataset, variant: Mapping[str, str]) -> list[float]:
    """Find the largest rank that a measure can have, in each arm of a setting.

    It is infinity if the measure is no rank of an operator.
    """
    operator, number = split_operator(variant["measure"])
    name = f"{operator}_rank_limit"
    if "rank" not in number or name not in data:
        return [math.inf] * data.sizes["arm"]
    keys = {"evaluation_point": variant["evaluation_point"], "block": variant["block"]}
    # Python's numbers, which take the precision of the rank that they are compared with
    limits: list[float] = data[name].sel(keys).max(["seed", "task"]).values.tolist()
    return limits


def tuning(
    outcomes: Mapping[tuple[str, str], Sequence[xr.Dataset]],
    choices: Mapping[tuple[str, str], Mapping[str, Any]],
) -> pd.DataFrame:
    """List the scores of every arm of a tuned method on the tuning seeds.

    Args:
        outcomes: of each block of tuning seeds, by setting and method.
        choices: results of `selection.choose`, by setting and method.

    Returns:
        One row per setting, arm, outcome and stage: the hyperparameters as JSON, the columns of
        `StageMean`, whether outcome and stage are the criterion, and whether the arm was chosen.
        The table is empty if nothing is tuned.
    """
    rows: list[Row] = []
    for (setting, method), blocks in outcomes.items():
        data = xr.concat(blocks, "seed", join="exact")
        choice = choices[setting, method]
        names = [name for name in LOWER_IS_BETTER if name in data]
        for index, compared in enumerate(choice["compared"]):
            arm_keys: Row = {
                "setting": setting,
                "method": method,
                "arm": data.arm.values[index],
                "hyperparameters": json.dumps(compared["arm"], sort_keys=True),
                "chosen": compared["arm"] == choice["arm"],
            }
            for outcome in names:
                values = data[outcome].isel(arm=index).values.astype(np.float64)
                for mean in stage_means(values, range(values.shape[1]), values.shape[1]):
                    criterion = {"outcome": outcome, "stage": mean.stage}
                    is_criterion = choice["criterion"] == criterion
                    keys = {**arm_keys, "outcome": outcome, "criterion": is_criterion}
                    rows.append({**keys, **mean.row()})
    table = pd.DataFrame(rows, columns=TUNING_COLUMNS)
    return table[table["stage"].isin(stages(1))]  # the others cannot be criteria


def stage_means(
    values: np.ndarray, measured: Sequence[int] | np.ndarray, tasks: int
) -> Iterator[StageMean]:
    """Average over the measured tasks of each stage and then over seeds.

    Args:
        values: shape ``(seed, measured)``. Seeds with values that are not finite are left out, and
            the note counts them.
        measured: numbers of the tasks that were measured.
        tasks: number of tasks of the runs.

    Yields:
        The mean at the first task, of each of `stages`, and of the change from early to late;
        nothing without measured tasks.
    """
    if not len(measured):
        return
    complete = values[np.isfinite(values).all(axis=1)]
    masks = {"first": np.asarray(measured) == 0, **stage_masks(measured, tasks)}
    means = {stage: _mean_of_tasks(complete[:, mask]) for stage, mask in masks.items()}
    means["change"] = means["late"] - means["early"]
    counts = {stage: int(mask.sum()) for stage, mask in masks.items()}
    counts["change"] = min(counts["early"], counts["late"])
    note = _note(len(values), len(complete))
    intervals = t_interval(np.stack(list(means.values())))
    for (stage, per_seed), low, high in zip(means.items(), *intervals, strict=True):
        if not counts[stage]:
            missing = Estimate(note=join_notes(note, "not measured then"))
            yield StageMean(stage, missing, seeds=len(per_seed), tasks=0)
            continue
        mean = per_seed.mean() if len(per_seed) else np.nan
        estimate = Estimate(mean, float(low), float(high), note=note)
        yield StageMean(stage, estimate, seeds=len(per_seed), tasks=counts[stage])


def _mean_of_tasks(values: np.ndarray) -> np.ndarray:
    """Average over tasks, ``(seed, task)`` → ``(seed,)``; NaN without tasks."""
    if not values.shape[1]:
        return np.full(len(values), np.nan, values.dtype)
    return np.asarray(values.mean(axis=1))


def series(data: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.DataArray]]:
    """Select every measure of a setting as a series over tasks, known at the start of each task.

    Args:
        data: dataset of a setting.

    Yields:
        ``{measure, evaluation_point, block}`` (an evaluation point is empty where a measure has
        none) and values with dims ``(arm, seed, task)``.
    """
    # An update norm is known only at the end of its task, so a task starts with the previous one.
    yield (
        {"measure": "update_norm", "evaluation_point": "previous", "block": "all"},
        data["update_norm"].shift(task=1),
    )
    for name, values in data.data_vars.items():
        if not _is_measure(str(name), values):
            continue
        has_points = "evaluation_point" in values.dims
        points = values.evaluation_point.values if has_points else [""]
        for block in values.block.values:
            for point in points:
                selected = values.sel(block=block)
                if has_points:
                    selected = selected.sel(evaluation_point=point)
                if selected.notnull().any():
                    variant = {
                        "measure": str(name),
                        "evaluation_point": point,
                        "block": str(block),
                    }
                    yield variant, selected.transpose("arm", "seed", "task")


def _is_measure(name: str, values: xr.DataArray) -> bool:
    """Check whether a variable has one number per task and block, and is no estimate of an error.

    Variables of treated copies have another dim for tasks.
    """
    is_per_block = {"task", "block"} <= set(values.dims)
    has_spectrum = bool({"rank", "grid"} & set(values.dims))
    return is_per_block and not has_spectrum and not name.endswith(NO_MEASURES)


def _note(seeds: int, complete: int) -> str:
    """State how many seeds are left out, and whether there are too few for an interval."""
    left_out = seeds - complete
    return join_notes(
        f"{left_out} diverged or with gaps" if left_out else "",
        "too few seeds for an interval" if complete < 2 else "",
    )
