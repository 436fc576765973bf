"""Error of treated copies of a checkpoint against what was measured before they learned."""

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from plasticity.config.quantities import describe, one_line_name
from plasticity.report.panels import (
    Panels,
    add_legend,
    add_remark,
    draw_sentence,
    finish,
    grid,
    primary_measure,
    titles,
)
from plasticity.report.style import Style
from plasticity.report.treated import (
    FAMILY_MARKERS,
    legend_of_controls,
    legend_of_families,
    marker_of,
    of_explained_arm,
    of_quantity,
    of_treatments,
    point_look,
    why_nothing,
)
from plasticity.statistics.interventions import TAU
from plasticity.statistics.treated_arrays import ALL_TASKS

CATEGORY = "4 Interventions"
TITLE = "error against measure within checkpoints"
TABLES = ("treatments", "interventions")
SETTINGS_PER_PAGE = 4
RIVALS = ("feature_rank", "dead_fraction", "weight_norm")
OUTCOME = "final_error"
COPY = ["setting", "task", "treatment"]  # columns that name a copy
HEIGHT = 1.2
LEAST_RANGE = 0.01  # of a share; a narrower one is drawn from 0 to 1
WIDE_RANGE = 50  # of the largest to the smallest value; a wider one is logarithmic


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per measure and a column per setting, with a point per treatment and task.

    A point is the mean over seeds. All copies are of the arm without an intervention.
    """
    measures = [primary_measure(datasets), *RIVALS]
    table = of_treatments(tables["treatments"], datasets)
    if of_quantity(table, OUTCOME).empty:
        return draw_sentence(why_nothing(tables["treatments"]), style)
    figure, panels = grid(
        dict.fromkeys(measures, "final error"),
        titles(datasets),
        style,
        HEIGHT,
        own_xlabels={name: one_line_name(name) for name in measures},
    )
    correlations = of_explained_arm(tables["interventions"], datasets)
    tasks = {name: sorted(set(rows["task"])) for name, rows in table.groupby("setting")}
    for measure in measures:
        points = _points(table, measure)
        for setting in datasets:
            axis = panels[measure, setting]
            of_setting = points[points["setting"] == setting]
            if setting in tasks:
                _draw_points(axis, of_setting, tasks[setting][-1], style)
            _add_correlation(axis, of_setting, correlations, style)
            _choose_scale(axis, of_setting)
    _share_errors(panels, list(datasets), style)
    add_legend(figure, _legend(table, tasks, style))
    return finish(figure, panels, style, legend=False)


def _points(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Join a measure of each copy with its error; they are the columns ``mean`` and ``error``."""
    errors = of_quantity(table, OUTCOME).set_index(COPY)["mean"].rename("error")
    return of_quantity(table, measure).join(errors, on=COPY).dropna(subset="error")


def _draw_points(axis: Axes, points: pd.DataFrame, last_task: int, style: Style) -> None:
    """Draw a point per treatment and task, filled for the last task."""
    markers = [
        marker_of(str(row["treatment"]), str(row["treatment_family"]))
        for _, row in points.iterrows()
    ]
    groups = points.assign(marker=markers).groupby(["task", "marker", "treatment_family"])
    for (task, marker, family), group in groups:
        look = point_look(marker, style.families[family], is_filled=task == last_task)
        axis.plot(group["mean"], group["error"], **look)


def _choose_scale(axis: Axes, points: pd.DataFrame) -> None:
    """Make a wide range logarithmic; a share that no treatment changes has the axis of a share."""
    values = points["mean"]
    if values.empty:
        return
    low, high = values.min(), values.max()
    if describe(str(points["quantity"].iloc[0])).is_share and high - low < LEAST_RANGE:
        axis.set_xlim(-0.05, 1.05)
    elif low > 0 and high > WIDE_RANGE * low:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1,)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())


def _add_correlation(
    axis: Axes, points: pd.DataFrame, correlations: pd.DataFrame, style: Style
) -> None:
    """Write τ within checkpoints above a panel, as the table has it for the panel's measure."""
    if points.empty:
        return
    first = points.iloc[0]
    rows = correlations[
        (correlations["setting"] == first["setting"])
        & (correlations["measure"] == first["quantity"])
        & (correlations["outcome"] == OUTCOME)
        & (correlations["statistic"] == TAU)
        & (correlations["task"] == ALL_TASKS)
    ]
    for _, row in rows.iterrows():
        if pd.isna(row["estimate"]):
            add_remark(axis, "τ is undefined", style)
        elif pd.isna(row["low"]):
            add_remark(axis, f"τ = {row['estimate']:.2f}", style)
        else:
            interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
            add_remark(axis, f"τ = {row['estimate']:.2f} {interval}", style)


def _share_errors(panels: Panels, settings: Sequence[str], style: Style) -> None:
    """Give all panels the same limits of errors, with numbers at the leftmost only."""
    drawn = [axis for axis in panels.values() if axis.has_data()]
    if not drawn:
        return
    limits = [axis.get_ylim() for axis in drawn]
    shared = (min(low for low, _ in limits), max(high for _, high in limits))
    for (_, setting), axis in panels.items():
        if axis.has_data():
            axis.set_ylim(shared)
            is_leftmost = settings.index(setting) % style.panels == 0
            axis.tick_params(labelleft=is_leftmost)


def _legend(
    table: pd.DataFrame, tasks: Mapping[str, Sequence[int]], style: Style
) -> dict[str, Line2D]:
    """Explain colours, markers and filled markers, for the treated tasks of each setting."""
    by_label = legend_of_families(set(table["treatment_family"]), style)
    by_label |= legend_of_controls(style)
    first_tasks, *others = tasks.values()
    names = {"open": _list(first_tasks[:-1]), "filled": _list(first_tasks[-1:])}
    if any(of_setting != first_tasks for of_setting in others):
        names = {"open": "an earlier task", "filled": "the last treated task"}
    for look, name in names.items():
        if name:
            line_options = point_look(FAMILY_MARKERS["restoring"], style.quiet, look == "filled")
            by_label[f"{look}: before {name}"] = Line2D([], [], **line_options)
    return by_label


def _list(tasks: Sequence[int]) -> str:
    """List tasks in words; empty if there are none."""
    return f"task {' or '.join(map(str, tasks))}" if tasks else ""
