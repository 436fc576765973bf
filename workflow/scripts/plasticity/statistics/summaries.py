"""What became of each arm: its outcomes and its measures, early and late, with intervals over seeds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from plasticity.statistics.resampling import t_interval
from plasticity.training.outcomes import LOWER_IS_BETTER, stages

TUNING = ["setting", "method", "arm", "hyper_parameters", "outcome", "stage", "criterion"]
TUNING += ["mean", "low", "high", "seeds", "tasks", "chosen", "note"]
OUTCOMES = tuple(outcome for name in LOWER_IS_BETTER for outcome in (name, f"{name}_gap"))


def with_gaps(data: xr.Dataset) -> xr.Dataset:
    """The dataset of a setting with `{outcome}_gap`: an outcome less that of a fresh network on the same seed and task."""
    there = [name for name in LOWER_IS_BETTER if name in data]
    return data.assign(
        {
            f"{name}_gap": (data[name] - data[f"fresh_{name}"]).transpose("arm", "seed", "task")
            for name in there
        }
    )


def outcomes(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Outcomes of every arm: early, late, overall, and the change from early to late.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting, arm, outcome and stage, with the numbers of `by_stage`.
    """
    rows = []
    for setting, data in ((name, with_gaps(data)) for name, data in datasets.items()):
        for arm in data.arm.values:
            for outcome in (name for name in OUTCOMES if name in data):
                runs = data[outcome].sel(arm=arm).values
                rows += [
                    {"setting": setting, "arm": arm, "outcome": outcome, **numbers}
                    for numbers in by_stage(runs)
                ]
    return pd.DataFrame(rows)


def summary(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Every arm at a glance: final error, its gap to a fresh network and the ranks of curvature on the coming task's data, early and late.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting and arm, with ``{name}_{stage}`` and its ``_low`` and ``_high`` for each of these numbers, all layers together;
        no ranks in a study that looks at old data alone.
    """
    rows = []
    for setting, data in ((name, with_gaps(data)) for name, data in datasets.items()):
        names = [
            name
            for name in map(str, data)
            if name.endswith("_effective_rank") and "next" in data.evaluation_point
        ]
        ranks = {name: data[name].sel(block="all", evaluation_point="next") for name in names}
        for arm in data.arm.values:
            row = {"setting": setting, "arm": arm}
            for name, values in {
                "final_error": data["final_error"],
                "final_error_gap": data["final_error_gap"],
                **ranks,
            }.items():
                runs = (
                    values.sel(arm=arm).transpose("seed", "task").dropna("task", how="all").values
                )
                for numbers in (
                    numbers for numbers in by_stage(runs) if numbers["stage"] in ("early", "late")
                ):
                    column = f"{name}_{numbers['stage']}"
                    row |= {
                        column: numbers["mean"],
                        f"{column}_low": numbers["low"],
                        f"{column}_high": numbers["high"],
                    }
            rows.append(row)
    return pd.DataFrame(rows)


def measures(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Measures of every arm at the tasks' starts: early, late, overall, and the change from early to late.

    Args:
        datasets: of each setting, by name.

    Returns:
        One row per setting, arm, measure, evaluation point, block and stage, with the numbers of `by_stage`.
    """
    rows = []
    for setting, data in datasets.items():
        for keys, measure in series(data):
            for arm in data.arm.values:
                runs = measure.sel(arm=arm).dropna("task", how="all").values
                rows += [
                    {"setting": setting, "arm": arm, **keys, **numbers}
                    for numbers in by_stage(runs)
                ]
    return pd.DataFrame(rows)


def tuning(
    outcomes: Mapping[tuple[str, str], Sequence[xr.Dataset]],
    choices: Mapping[tuple[str, str], Mapping[str, Any]],
) -> pd.DataFrame:
    """What every arm of a tuned method scored on the tuning seeds, by every outcome and stage that it could have been chosen by.

    Args:
        outcomes: of each block of tuning seeds, by setting and method.
        choices: of the same, as `tuning.choose` gives them.

    Returns:
        One row per setting, arm, outcome and stage: its hyper-parameters as JSON, the numbers of `by_stage`, whether outcome and
        stage are the criterion, and whether the arm is the chosen one. No row where nothing is tuned.
    """
    rows: list[dict[str, object]] = []
    for (setting, method), blocks in outcomes.items():
        data, choice = xr.concat(blocks, "seed", join="exact"), choices[setting, method]
        for place, compared in enumerate(choice["compared"]):
            for outcome in (name for name in LOWER_IS_BETTER if name in data):
                for numbers in by_stage(data[outcome].isel(arm=place).values.astype(np.float64)):
                    keys = {"setting": setting, "method": method, "arm": data.arm.values[place]}
                    keys |= {
                        "hyper_parameters": json.dumps(compared["arm"], sort_keys=True),
                        "outcome": outcome,
                    }
                    criterion = choice["criterion"] == {
                        "outcome": outcome,
                        "stage": numbers["stage"],
                    }
                    rows.append(
                        keys
                        | numbers
                        | {"criterion": criterion, "chosen": compared["arm"] == choice["arm"]}
                    )
    table = pd.DataFrame(rows, columns=TUNING)
    return table[table["stage"] != "change"]  # nothing is chosen by it


def by_stage(runs: np.ndarray) -> Iterator[dict[str, object]]:
    """Means over the tasks of each stage, then over seeds, with their intervals.

    Args:
        runs: shape ``(seed, task)``; a seed that is not finite throughout is left out and counted in the note.

    Yields:
        ``stage, mean, low, high, seeds, tasks, note`` for each of `stages` and for the change from early to late.
    """
    kept = runs[np.isfinite(runs).all(axis=1)]
    cut = stages(runs.shape[1])
    means = {stage: kept[:, window].mean(axis=1) for stage, window in cut.items() if runs.shape[1]}
    if means:
        means["change"] = means["late"] - means["early"]
    for stage, values in means.items():
        low, high = map(float, t_interval(values))
        window = cut.get(stage, cut["early"])
        yield {
            "stage": stage,
            "mean": values.mean() if len(values) else np.nan,
            "low": low,
            "high": high,
            "seeds": len(values),
            "tasks": window.stop - window.start,
            "note": _note(len(runs), len(kept)),
        }


def series(data: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.DataArray]]:
    """Every measure of a setting as series over tasks, known at the task's start.

    Yields:
        ``{measure, evaluation_point, block}`` (empty where a measure has none) and values with dims ``(arm, seed, task)``.
    """
    # an update norm is that of a whole task: what is known at a task's start is the ended task's
    yield (
        {"measure": "update_norm", "evaluation_point": "previous", "block": "all"},
        data["update_norm"].shift(task=1),
    )
    for name, values in data.data_vars.items():
        if (
            "block" in values.dims
            and not {"rank", "grid"} & set(values.dims)
            and not str(name).endswith("_error")
        ):
            for block in values.block.values:
                for evaluation_point in (
                    values.evaluation_point.values if "evaluation_point" in values.dims else [""]
                ):
                    chosen = values.sel(
                        {"block": block}
                        | ({"evaluation_point": evaluation_point} if evaluation_point else {})
                    )
                    if chosen.notnull().any():
                        yield (
                            {
                                "measure": str(name),
                                "evaluation_point": evaluation_point,
                                "block": str(block),
                            },
                            chosen.transpose("arm", "seed", "task"),
                        )


def _note(members: int, kept: int) -> str:
    """What a reader must know of the seeds behind a row."""
    notes = [f"{members - kept} diverged or with gaps"] if kept < members else []
    return "; ".join([*notes, "too few seeds for an interval"] if kept < 2 else notes)
