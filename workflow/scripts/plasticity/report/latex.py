"""Tables as a paper has them: settings, methods with intervals and tests, and what each stage cost; as numbers, and in LaTeX."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity.training.outcomes import LOWER_IS_BETTER

STAGES = (
    "prepare",
    "tune",
    "train",
    "curvature",
    "gather",
    "analyse",
)  # those before the tables of a paper
ALL_STAGES = (*STAGES, "check", "typeset", "page", "draw")
OF_FOLDER = {
    "data": "prepare",
    "datasets": "gather",
    "tables.tsv": "analyse",
    "checks.tsv": "check",
    "tables": "page",
    "figures": "draw",
}
BOUNDS = ("_low", "_high")
CELL = "{:.3g}"


def settings(stamps: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What each setting is.

    Args:
        stamps: of each setting's dataset, what it says of its settings.

    Returns:
        One row per setting: problem, budget, network, optimizer, number of arms and of seeds.
    """
    rows = []
    for name, stamp in stamps.items():
        problem, network, optimizer = (
            stamp["setting"][part] for part in ("problem", "network", "optimizer")
        )
        epochs = problem["epochs"]
        row = {
            "setting": name,
            "dataset": problem["dataset"],
            "shift": _with(problem["shift"], problem["options"]),
        }
        row |= {"images": problem["samples"], "batch": problem["batch"], "tasks": problem["tasks"]}
        row["steps a task"] = problem["steps_per_task"] or epochs * -(
            -problem["samples"] // problem["batch"]
        )
        row |= {
            "network": _with(network["kind"], network["options"]),
            "activation": network["activation"],
        }
        row |= {
            "optimizer": _with(optimizer["kind"], optimizer["options"]),
            "arms": len(stamp["arms"]),
            "seeds": stamp["seeds"],
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _with(name: str, options: Mapping[str, Any]) -> str:
    """A choice with its options in words."""
    return " ".join([name, *(f"{key.replace('_', ' ')} {value}" for key, value in options.items())])


def methods(outcomes: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Late outcomes of every arm, and how they compare to those of no intervention.

    Args:
        outcomes: the table.
        comparisons: the table, adjusted.

    Returns:
        One row per setting and arm: each outcome, and its gap to a fresh network, as mean with ``_low`` and ``_high``; the paired
        difference of the final error to that of ``none``, with interval and adjusted p; and how many seeds there are.
    """
    late = outcomes[outcomes["stage"] == "late"]
    keys = {
        "stage": "late",
        "outcome": "final_error",
        "statistic": "mean_difference",
        "versus": "none",
    }
    tested = comparisons[(comparisons[list(keys)] == pd.Series(keys)).all(axis=1)].set_index(
        ["setting", "arm"]
    )
    rows = []
    for (setting, arm), found in late.groupby(["setting", "arm"], sort=False):
        numbers = found.set_index("outcome")
        row: dict[str, object] = {"setting": setting, "arm": arm}
        for name in (
            name
            for outcome in LOWER_IS_BETTER
            for name in (outcome, f"{outcome}_gap")
            if name in numbers.index
        ):
            row |= {
                name: numbers.loc[name, "mean"],
                f"{name}_low": numbers.loc[name, "low"],
                f"{name}_high": numbers.loc[name, "high"],
            }
        test = (
            tested.loc[(setting, arm)]
            if (setting, arm) in tested.index
            else dict.fromkeys(("estimate", "low", "high", "p_adjusted"), np.nan)
        )
        row |= {
            "difference_to_none": test["estimate"],
            "difference_to_none_low": test["low"],
            "difference_to_none_high": test["high"],
        }
        rows.append(row | {"adjusted_p": test["p_adjusted"], "seeds": int(found["seeds"].min())})
    return pd.DataFrame(rows)


def cost(benchmarks: Path, stages: Collection[str] = STAGES) -> pd.DataFrame:
    """What each stage took, from Snakemake's records.

    Args:
        benchmarks: the study's folder of them.
        stages: that are counted.

    Returns:
        One row per stage: how many jobs, their seconds (median, longest, sum in hours), hours of CPUs, and the largest memory in MB. No row
        of what ran without leaving a record.
    """
    rows: dict[str, list[pd.Series]] = {stage: [] for stage in stages}
    for path in sorted(benchmarks.rglob("*.tsv")):
        folder, *_ = path.relative_to(benchmarks).parts
        stage = OF_FOLDER.get(folder, path.stem)
        if stage in rows:
            rows[stage].append(pd.read_csv(path, sep="\t", na_values="-").iloc[-1])
    found = []
    for stage, jobs in ((stage, jobs) for stage, jobs in rows.items() if jobs):
        table = pd.DataFrame(jobs)[["s", "cpu_time", "max_rss"]].astype(float)
        row = {
            "stage": stage,
            "jobs": len(table),
            "median seconds": table["s"].median(),
            "longest seconds": table["s"].max(),
        }
        row |= {
            "hours": table["s"].sum() / 3600,
            "CPU hours": table["cpu_time"].sum() / 3600,
            "largest MB": table["max_rss"].max(),
        }
        found.append(row)
    return pd.DataFrame(
        found,
        columns=[
            "stage",
            "jobs",
            "median seconds",
            "longest seconds",
            "hours",
            "CPU hours",
            "largest MB",
        ],
    )


def latex(table: pd.DataFrame) -> str:
    """A table for a paper (it needs the package booktabs): an estimate and its bounds in one cell, every sign of LaTeX's escaped."""
    shown = pd.DataFrame(index=table.index)
    for name in (column for column in table if not str(column).endswith(BOUNDS)):
        bounds = [f"{name}{end}" for end in BOUNDS]
        cells = table[name].map(_cell)
        if set(bounds) <= set(table.columns):
            low, high = (table[bound] for bound in bounds)
            cells = [
                f"{cell} [{_cell(a)}, {_cell(b)}]" if np.isfinite(a) else cell
                for cell, a, b in zip(cells, low, high, strict=True)
            ]
        shown[str(name).replace("_", " ")] = cells
    return str(shown.to_latex(index=False, escape=True))


def _cell(value: object) -> str:
    """A number in three digits, or what else stands there."""
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else CELL.format(value)
    return str(value)


def written(tables: Mapping[str, pd.DataFrame], paths: Sequence[Path]) -> dict[Path, str]:
    """The text of each file, by what it is called and what it ends in.

    Args:
        tables: by name.
        paths: ``{table}.csv`` and ``{table}.tex``.
    """
    return {
        path: latex(tables[path.stem])
        if path.suffix == ".tex"
        else tables[path.stem].to_csv(index=False, float_format="%.6g")
        for path in paths
    }
