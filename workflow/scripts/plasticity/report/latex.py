"""Make the tables of a paper: settings, methods and cost, as CSV and in LaTeX."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity.config.models import Setting
from plasticity.training.outcomes import LOWER_IS_BETTER

# stages that are finished when the cost table is made
STAGES = ("prepare", "tune", "train", "curvature", "intervene", "gather", "analyse")
# the first part of a benchmark's path; in other folders the file's name is the stage
STAGE_OF_PATH = {
    "data": "prepare",
    "datasets": "gather",
    "tables.tsv": "analyse",
    "checks.tsv": "check",
    "figures": "draw",
}
COST_COLUMNS = [
    "stage",
    "jobs",
    "median seconds",
    "longest seconds",
    "hours",
    "CPU hours",
    "largest MB",
]
BOUNDS = ("_low", "_high")  # endings of the columns that bound an estimate
NUMBER_FORMAT = "{:.3g}"


def settings(job_settings: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Describe each setting.

    Args:
        job_settings: by setting, the settings that its dataset was made with.

    Returns:
        One row per setting: problem, budget, network, optimizer, number of arms and of seeds.
    """
    return pd.DataFrame([_setting_row(name, job) for name, job in job_settings.items()])


SCALINGS = {"standardize": "standardized", "symmetric": "[-1, 1]", "unit": "[0, 1]"}


def _setting_row(name: str, job: Mapping[str, Any]) -> dict[str, object]:
    """Describe a setting in one row of the table."""
    setting = Setting.of(job["setting"])
    problem, network, optimizer = setting.problem, setting.network, setting.optimizer
    return {
        "setting": name,
        "dataset": problem.dataset,
        "shift": _with_options(problem.shift, problem.options),
        "images": problem.samples,
        "pixels": SCALINGS[problem.scaling],
        "batch": problem.batch,
        "tasks": problem.tasks,
        "steps a task": problem.steps,
        "network": _with_options(network.kind, network.options),
        "activation": network.activation,
        "optimizer": _with_options(optimizer.kind, optimizer.options),
        "arms": len(job["arms"]),
        "seeds": job["seeds"],
    }


def _with_options(name: str, options: Mapping[str, Any]) -> str:
    """Append options to a name: ``mlp depth 3 width 64``."""
    return " ".join([name, *(f"{key.replace('_', ' ')} {value}" for key, value in options.items())])


def methods(outcomes: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Collect the late outcomes of every arm and its comparison with no intervention.

    Args:
        outcomes: the table of outcomes.
        comparisons: the table of comparisons, with adjusted p-values.

    Returns:
        One row per setting and arm: each outcome and its gap to the baseline, as mean with
        ``_low`` and ``_high``; the paired difference of the final error to that of ``none``, with
        interval and adjusted p; and the number of seeds.
    """
    late = outcomes[outcomes["stage"] == "late"]
    tests = _tests_against_none(comparisons)
    rows = []
    for (setting, arm), arm_outcomes in late.groupby(["setting", "arm"], sort=False):
        row: dict[str, object] = {"setting": setting, "arm": arm}
        row |= _outcome_columns(arm_outcomes.set_index("outcome"))
        row |= _test_columns(tests, setting, arm)
        row["seeds"] = int(arm_outcomes["seeds"].min())
        rows.append(row)
    return pd.DataFrame(rows)


def _tests_against_none(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Select the late comparisons of final errors with no intervention, by setting and arm."""
    wanted = {
        "stage": "late",
        "outcome": "final_error",
        "statistic": "mean_difference",
        "versus": "none",
    }
    is_wanted = (comparisons[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return comparisons[is_wanted].set_index(["setting", "arm"])


def _outcome_columns(outcomes: pd.DataFrame) -> dict[str, object]:
    """Write each outcome of an arm, and its gap, as a mean with bounds."""
    columns: dict[str, object] = {}
    for outcome in LOWER_IS_BETTER:
        for name in (outcome, f"{outcome}_gap"):
            if name in outcomes.index:
                columns[name] = outcomes.loc[name, "mean"]
                columns[f"{name}_low"] = outcomes.loc[name, "low"]
                columns[f"{name}_high"] = outcomes.loc[name, "high"]
    return columns


def _test_columns(tests: pd.DataFrame, setting: object, arm: object) -> dict[str, object]:
    """Write the comparison of an arm with no intervention; NaN if there is none."""
    if (setting, arm) in tests.index:
        test = tests.loc[(setting, arm)]
    else:
        test = dict.fromkeys(("estimate", "low", "high", "p_adjusted"), np.nan)
    return {
        "difference_to_none": test["estimate"],
        "difference_to_none_low": test["low"],
        "difference_to_none_high": test["high"],
        "adjusted_p": test["p_adjusted"],
    }


def cost(benchmarks: Path) -> pd.DataFrame:
    """Sum up the time and memory of each stage, from Snakemake's benchmark files.

    Args:
        benchmarks: folder with the benchmark files of the study.

    Returns:
        One row per stage with at least one benchmark file: number of jobs, seconds of a job
        (median and longest), hours of all jobs, hours of CPUs, and the largest memory in MB.
    """
    jobs_by_stage: dict[str, list[pd.Series]] = {stage: [] for stage in STAGES}
    for path in sorted(benchmarks.rglob("*.tsv")):
        first_part = path.relative_to(benchmarks).parts[0]
        stage = STAGE_OF_PATH.get(first_part, path.stem)
        if stage in jobs_by_stage:
            jobs_by_stage[stage].append(pd.read_csv(path, sep="\t", na_values="-").iloc[-1])
    rows = [_cost_row(stage, jobs) for stage, jobs in jobs_by_stage.items() if jobs]
    return pd.DataFrame(rows, columns=COST_COLUMNS)


def _cost_row(stage: str, jobs: Sequence[pd.Series]) -> dict[str, object]:
    """Sum up the jobs of a stage."""
    table = pd.DataFrame(jobs)[["s", "cpu_time", "max_rss"]].astype(float)
    return {
        "stage": stage,
        "jobs": len(table),
        "median seconds": table["s"].median(),
        "longest seconds": table["s"].max(),
        "hours": table["s"].sum() / 3600,
        "CPU hours": table["cpu_time"].sum() / 3600,
        "largest MB": table["max_rss"].max(),
    }


def latex(table: pd.DataFrame) -> str:
    """Write a table in LaTeX, for the package booktabs.

    An estimate and its bounds are in one cell. All special characters are escaped.
    """
    cells = pd.DataFrame(index=table.index)
    for name in table:
        if str(name).endswith(BOUNDS):
            continue
        column = [_format_value(value) for value in table[name]]
        bounds = [f"{name}{end}" for end in BOUNDS]
        if set(bounds) <= set(table.columns):
            lows, highs = (table[bound] for bound in bounds)
            column = list(map(_append_interval, column, lows, highs))
        cells[str(name).replace("_", " ")] = column
    return str(cells.to_latex(index=False, escape=True))


def _append_interval(cell: str, low: float, high: float) -> str:
    """Append an interval to an estimate, if there is one."""
    if not np.isfinite(low):
        return cell
    return f"{cell} [{_format_value(low)}, {_format_value(high)}]"


def _format_value(value: object) -> str:
    """Format a number with three digits, a missing one as a dash; and any other value as text."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return "–" if np.isnan(value) else NUMBER_FORMAT.format(value)


def file_contents(tables: Mapping[str, pd.DataFrame], paths: Iterable[Path]) -> dict[Path, str]:
    """Write each table in the format of each path's suffix.

    Args:
        tables: by name.
        paths: ``{table}.csv`` and ``{table}.tex``.

    Returns:
        Contents of the files by path.
    """
    contents = {}
    for path in paths:
        table = tables[path.stem]
        if path.suffix == ".tex":
            contents[path] = latex(table)
        else:
            contents[path] = table.to_csv(index=False, float_format="%.6g")
    return contents
