"""Curvature rank at a task's start against the error that the task ends with: a point per seed and task, a panel per setting."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from plasticity.report.panels import finish, grid, main_operator, series, titles, words
from plasticity.report.style import Style

CATEGORY = "3 What goes with it"
TITLE = "rank against the error to come"
TABLES = ("associations",)
BEATEN = {
    "none": "beats no null",
    "": "too few seeds for a null",
    "task": "beats: shared curve",
    "shifted": "beats: shifted tasks",
    "differenced": "beats: innovations",
    "mismatched": "beats: mismatched seeds",
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention; the panel says the correlation within a run, and the strongest null that it beats."""
    measure = f"{main_operator(datasets)}_effective_rank"
    rows = {"final_error": "final error of\nthe coming task"}
    figure, panels = grid(
        rows, titles(datasets), style, height=1.5, apart={"final_error": words(measure)}
    )
    last = max(data.sizes["task"] for data in datasets.values()) - 1
    points = None
    for setting, data in datasets.items():
        axis = panels["final_error", setting]
        rank, error = (series(data, name, "none") for name in (measure, "final_error"))
        known = np.isfinite(rank.values) & np.isfinite(error.values)
        if known.any():
            task = np.broadcast_to(error.task.values, error.shape)
            points = axis.scatter(
                rank.values[known],
                error.values[known],
                c=task[known],
                s=4,
                cmap=style.sequence,
                norm=Normalize(0, last),
                linewidths=0,
                rasterized=True,
            )
        axis.set_title(
            "\n".join([axis.get_title(), *_verdict(tables["associations"], setting, measure)])
        )
    if points is not None:
        figure.colorbar(points, ax=list(panels.values()), label="task", aspect=30, pad=0.01)
    return finish(figure, panels, style)


def _verdict(associations: pd.DataFrame, setting: str, measure: str) -> list[str]:
    """The table's row on this panel, in words."""
    keys = {"setting": setting, "level": "within_run", "arm": "none", "outcome": "final_error"}
    keys |= {"measure": measure, "evaluation_point": "next", "block": "all"}
    found = associations.loc[(associations[list(keys)] == pd.Series(keys)).all(axis=1)]
    if found.empty:
        return []
    row = found.iloc[0]
    if np.isnan(row["estimate"]):
        return [f"ρ: {row['note']}"]
    interval = "one seed" if np.isnan(row["low"]) else f"[{row['low']:.2f}, {row['high']:.2f}]"
    return [f"ρ = {row['estimate']:.2f} {interval}", BEATEN[str(row["strongest_null"])]]
