"""How well each explanation orders treated copies of a checkpoint by their error."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.quantities import (
    EXPLANATIONS,
    RANKS,
    describe,
    one_line_name,
    split_operator,
)
from plasticity.report.panels import (
    SMALL_FONT,
    draw_sentence,
    finish,
    main_operator,
    primary_measure,
    setting_titles,
)
from plasticity.report.style import Style
from plasticity.report.treated import of_explained_arm, why_nothing
from plasticity.statistics.interventions import TAU
from plasticity.statistics.treated_arrays import ALL_TASKS

CATEGORY = "4 Interventions"
TITLE = "each explanation within checkpoints"
TABLES = ("interventions",)
SETTINGS_PER_PAGE = 16
OUTCOME = "final_error"
ALL_SETTINGS = "all"
# inches
LINE_HEIGHT = 0.115
LINES_PER_COLUMN = 32  # with more lines, the groups are divided into two columns


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a group of lines per explanation: a line per setting, and one over all settings.

    The sign of τ is turned, so that an explanation that holds as claimed lies on the right.
    """
    settings = [*datasets, ALL_SETTINGS] if len(datasets) > 1 else list(datasets)
    table = _select(tables["interventions"], settings)
    measures = [name for name in _explanations(datasets) if name in set(table["measure"])]
    if not measures:
        return draw_sentence(why_nothing(tables["interventions"]), style)
    names = setting_titles(datasets) | {ALL_SETTINGS: "all settings"}
    group_height = len(settings) + 1.5
    column_count = 1 if group_height * len(measures) <= LINES_PER_COLUMN else 2
    groups_per_column = max(1, -(-len(measures) // column_count))
    height = LINE_HEIGHT * max(group_height * groups_per_column, 6) + 0.6
    width = style.widths["page"] if column_count == 2 else style.width(2)
    figure, axes = plt.subplots(1, column_count, figsize=(width, height), squeeze=False)
    panels = {("rivals", str(column)): axis for column, axis in enumerate(axes[0])}
    for column, axis in enumerate(axes[0]):
        of_column = measures[column * groups_per_column : (column + 1) * groups_per_column]
        if of_column:
            chosen = {name: names[name] for name in settings}
            _draw_groups(axis, table, of_column, chosen, style)
            axis.set_ylim(groups_per_column * group_height - 0.5, -1)
        else:
            axis.remove()
    return finish(figure, panels, style, legend=False)


def _explanations(datasets: Mapping[str, xr.Dataset]) -> list[str]:
    """List the ranks of curvature, their rivals, and the top eigenvalue, which has no claim."""
    operator = main_operator(datasets)
    ranks = [primary_measure(datasets), *(f"{operator}_{rank}" for rank in RANKS)]
    rivals = [name for name in EXPLANATIONS if describe(name).claimed_sign != 0]
    return [*dict.fromkeys(ranks), *rivals, f"{operator}_top_eigenvalue"]


def _select(table: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Select τ as the mean over all treated tasks, one row per setting and measure."""
    table = of_explained_arm(table, settings)
    return table[
        (table["statistic"] == TAU) & (table["outcome"] == OUTCOME) & (table["task"] == ALL_TASKS)
    ]


def _draw_groups(
    axis: Axes,
    table: pd.DataFrame,
    measures: Sequence[str],
    settings: Mapping[str, str],
    style: Style,
) -> None:
    """Draw explanations below each other, with their names above their lines."""
    positions: list[float] = []
    labels: list[str] = []
    by_measure_and_setting = table.set_index(["measure", "setting"])
    for group, measure in enumerate(measures):
        top = group * (len(settings) + 1.5)
        positions.append(top)
        labels.append(_heading(measure))
        for line, setting in enumerate(settings, start=1):
            positions.append(top + line)
            labels.append(settings[setting])
            if (measure, setting) in by_measure_and_setting.index:
                row = by_measure_and_setting.loc[(measure, setting)]
                _draw_line(axis, top + line, measure, setting, row, style)
    axis.set_yticks(positions, labels)
    headings = {_heading(measure) for measure in measures}
    for tick in axis.get_yticklabels():
        if tick.get_text() in headings:
            tick.set_fontweight("bold")
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_xlim(-1.03, 1.03)
    axis.set_xlabel("τ within checkpoints\n(right: as claimed)")
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def _heading(measure: str) -> str:
    """Name an explanation, and say if the literature claims no direction."""
    name = one_line_name(measure)
    return name if describe(measure).claimed_sign else f"{name} (no claim)"


def _draw_line(
    axis: Axes, y: float, measure: str, setting: str, row: pd.Series, style: Style
) -> None:
    """Draw τ, its sign turned, with its interval; thicker for all settings."""
    if np.isnan(row["estimate"]):
        axis.text(0.02, y, "undefined", fontsize=SMALL_FONT - 1, va="center", color=style.quiet)
        return
    sign = describe(measure).claimed_sign or 1
    is_summary = setting == ALL_SETTINGS
    colour = _colour(measure, style)
    interval = sign * np.array([row["low"], row["high"]])
    axis.plot(interval, [y, y], color=colour, linewidth=2 if is_summary else 0.9)
    marker, size = ("D", 3.5) if is_summary else ("o", 2.5)
    axis.plot(sign * row["estimate"], y, marker, color=colour, markersize=size)
    if is_summary and describe(measure).claimed_sign and np.isfinite(row["sign_agreement"]):
        count = f"{round(row['sign_agreement'] * row['settings'])}/{row['settings']:.0f}"
        axis.text(1.08, y, count, fontsize=SMALL_FONT, va="center", color=style.quiet)


def _colour(measure: str, style: Style) -> str:
    """Choose the colour of an explanation: that of its operator, or black for a rival."""
    if describe(measure).claimed_sign == 0:
        return style.quiet
    operator = split_operator(measure)[0]
    return str(style.of_operator(operator)["color"]) if operator else "black"
