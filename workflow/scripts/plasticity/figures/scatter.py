"""Curvature rank at a task's start against the error that the task ends with: a point per seed and task, a panel per setting."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import figures

COLUMNS = 4


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The arm without an intervention; the panel says the mean over seeds of the rank correlation within a run."""
    columns = min(COLUMNS, len(datasets))
    figure, axes = figures.panels(-(-len(datasets) // columns), columns, height=1.9)
    for axis in axes.flat[len(datasets) :]:
        axis.set_visible(False)
    for axis, (setting, data) in zip(axes.flat, datasets.items(), strict=False):
        rank, error = (figures.series(data, name, "none") for name in ("fisher_effective_rank", "final_error"))
        task = np.broadcast_to(error.task.values, error.shape)
        colours = axis.scatter(rank.values, error.values, c=task, s=5, cmap="viridis", linewidths=0)
        axis.set_title(f"{figures.title(setting)}\n{_verdict(tables['associations'], setting)}")
    figure.supxlabel("effective rank of the Fisher at the task's start", size="medium")
    figure.supylabel("final error of the coming task", size="medium")
    figure.colorbar(colours, ax=axes, label="task", aspect=30, pad=0.01)
    return figure


def _verdict(associations: pd.DataFrame, setting: str) -> str:
    """The table's row on this panel, in words."""
    keys = {
        "setting": setting,
        "level": "within_run",
        "arm": "none",
        "outcome": "final_error",
        "measure": "fisher_effective_rank",
        "moment": "new",
        "block": "all",
    }
    found = associations.loc[(associations[list(keys)] == pd.Series(keys)).all(axis=1)]
    if found.empty:
        return "not measured"
    row = found.iloc[0]
    if np.isnan(row["estimate"]):
        return f"ρ: {row['note']}"
    if np.isnan(row["low"]):
        return f"ρ = {row['estimate']:.2f}, one seed"
    return f"ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
