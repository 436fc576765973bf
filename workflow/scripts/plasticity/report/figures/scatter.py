"""Curvature rank at a task's start against the error at the task's end."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from plasticity.config.quantities import EXPLANATION, one_line_name
from plasticity.report.panels import finish, grid, primary_measure, series, titles
from plasticity.report.style import Style

CATEGORY = "3 Associations"
TITLE = "rank against the error to come"
TABLES = ("associations",)
SETTINGS_PER_PAGE = 16
STRONGEST_NULL_MODEL = {
    "none": "beats no null model",
    "": "too few seeds for a null model",
    "task": "beats: shared curve",
    "shifted": "beats: shifted tasks",
    "differenced": "beats: innovations",
    "mismatched": "beats: mismatched seeds",
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting with a point per seed and task, without an intervention.

    The panel's title states the correlation within runs, and the strongest null model it beats.
    """
    measure = primary_measure(datasets)
    rows = {"final_error": "final error of\nthe next task"}
    own_xlabels = {"final_error": one_line_name(measure)}
    figure, panels = grid(rows, titles(datasets), style, height=1.5, own_xlabels=own_xlabels)
    last_task = max(data.sizes["task"] for data in datasets.values()) - 1
    last_points = None
    for setting, data in datasets.items():
        axis = panels["final_error", setting]
        last_points = _draw_points(axis, data, measure, last_task, style) or last_points
        lines = [axis.get_title(), *_verdict(tables["associations"], setting, measure)]
        axis.set_title("\n".join(lines))
    if last_points is not None:
        figure.colorbar(last_points, ax=list(panels.values()), label="task", aspect=30, pad=0.01)
    return finish(figure, panels, style)


def _draw_points(
    axis: Axes, data: xr.Dataset, measure: str, last_task: int, style: Style
) -> PathCollection | None:
    """Draw a point per seed and task, coloured by task; None if nothing was measured."""
    rank = series(data, measure, "none")
    error = series(data, "final_error", "none")
    is_known = np.isfinite(rank.values) & np.isfinite(error.values)
    if not is_known.any():
        return None
    task = np.broadcast_to(error.task.values, error.shape)
    return axis.scatter(
        rank.values[is_known],
        error.values[is_known],
        c=task[is_known],
        s=4,
        cmap=style.sequence,
        norm=Normalize(0, last_task),
        linewidths=0,
        rasterized=True,
    )


def _verdict(associations: pd.DataFrame, setting: str, measure: str) -> list[str]:
    """Put the table's row about a panel into lines of text."""
    wanted = {
        "setting": setting,
        "level": "within_run",
        "arm": "none",
        "outcome": "final_error",
        "measure": measure,
        **EXPLANATION,
    }
    rows = associations[(associations[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    if rows.empty:
        return []
    row = rows.iloc[0]
    if np.isnan(row["estimate"]):
        return [f"ρ: {row['note']}"]
    interval = "one seed" if np.isnan(row["low"]) else f"[{row['low']:.2f}, {row['high']:.2f}]"
    return [
        f"ρ = {row['estimate']:.2f} {interval}",
        STRONGEST_NULL_MODEL[str(row["strongest_null_model"])],
    ]
