"""Curvature rank at a task's start against the error at the task's end."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.config.quantities import EXPLANATION, one_line_name
from plasticity.report.panels import (
    SMALL_FONT,
    finish,
    grid,
    primary_measure,
    series,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "3 Associations"
TITLE = "rank against the error to come"
TABLES = ("associations",)
SETTINGS_PER_PAGE = 16
# by the strongest null model that is rejected; a null model says that runs share only a trend
VERDICTS = {"none": "may be a shared trend", "": "too few seeds to tell"}
MORE_THAN_A_TREND = "more than a shared trend"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting with a point per seed and task, without an intervention.

    The panel's title states the correlation within runs, and whether a null model of a shared trend
    is rejected. The first task has its own marker, because its network is untrained.
    """
    measure = primary_measure(datasets)
    rows = {"final_error": "final error"}
    own_xlabels = {"final_error": one_line_name(measure)}
    figure, panels = grid(rows, titles(datasets), style, height=1.5, own_xlabels=own_xlabels)
    last_task = max(data.sizes["task"] for data in datasets.values()) - 1
    last_points = None
    for setting, data in datasets.items():
        axis = panels["final_error", setting]
        last_points = _draw_points(axis, data, measure, last_task, style) or last_points
        _add_verdict(axis, tables["associations"], setting, measure, style)
    if last_points is not None:
        bands = -(-len(datasets) // style.panels)
        colorbar = figure.colorbar(
            last_points, ax=list(panels.values()), label="task", aspect=15 * bands, pad=0.01
        )
        colorbar.locator = MaxNLocator(integer=True)
        colorbar.outline.set_visible(False)
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
    is_first = is_known & (task == 0)
    is_later = is_known & (task > 0)
    axis.plot(
        rank.values[is_first],
        error.values[is_first],
        "x",
        color=style.warning,
        markeredgewidth=0.8,
        label="task 0: the untrained network",
    )
    return axis.scatter(
        rank.values[is_later],
        error.values[is_later],
        c=task[is_later],
        s=4,
        cmap=style.sequence,
        norm=Normalize(1, max(last_task, 2)),
        linewidths=0,
        rasterized=True,
    )


def _add_verdict(
    axis: Axes, associations: pd.DataFrame, setting: str, measure: str, style: Style
) -> None:
    """Write the table's row about a panel in small letters between its title and the panel."""
    lines = _verdict(associations, setting, measure)
    if not lines:
        return
    axis.set_title(axis.get_title(), pad=4 + len(lines) * 1.25 * SMALL_FONT)
    is_shown = MORE_THAN_A_TREND in lines
    for index, line in enumerate(reversed(lines)):
        axis.annotate(
            line,
            (0.5, 1.0),
            xytext=(0, 3 + index * 1.25 * SMALL_FONT),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=SMALL_FONT,
            color="black" if is_shown else style.quiet,
            annotation_clip=False,
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
        return [f"no ρ: {row['note']}"]
    interval = "one seed" if np.isnan(row["low"]) else f"[{row['low']:.2f}, {row['high']:.2f}]"
    correlation = f"ρ = {row['estimate']:.2f} {interval}".replace("-", "−")
    rejected = str(row["strongest_null_model"])
    return [correlation, VERDICTS.get(rejected, MORE_THAN_A_TREND)]
