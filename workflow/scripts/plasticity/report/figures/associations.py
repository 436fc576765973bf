"""Correlation of every measure with the loss of plasticity, by setting and over all settings."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plasticity.config.quantities import one_line_name, split_operator
from plasticity.report.panels import SMALL_FONT, draw_sentence, finish, setting_titles
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.setting_arrays import preferred_variants

CATEGORY = "3 Associations"
TITLE = "every measure in every setting"
TABLES = ("associations", "consistency")
SETTINGS_PER_PAGE = 16
OUTCOME = "final_error_gap"
# inches
ROW_HEIGHTS = (0.1, 0.2)  # least and largest
OTHER_HEIGHT = 1.8  # legend, axes and colour bar
LONGEST_TITLE = 0.9  # of a setting, if it is written upwards
NAMES_WIDTH = 1.6
FOREST_WIDTH = 1.5
CELL_WIDTHS = (0.16, 0.9)  # least and largest
MAX_HEIGHT = 1.38  # of the figure, as a share of its width
FEW = 6  # settings; so many or more have titles that are written upwards
UNIT = 0.42  # of a cell's width: a correlation of 1


class Mark(NamedTuple):
    """The dot of a correlation whose strongest null model beaten is this one."""

    marker: str
    fill: str
    label: str


MARKS = {
    "none": Mark("o", "white", "beats no null model"),
    "task": Mark("o", "black", "the curve that all seeds share"),
    "shifted": Mark("^", "black", "shifted tasks"),
    "differenced": Mark("s", "black", "innovations"),
    "mismatched": Mark("D", "black", "mismatched seeds"),
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a cell per measure and setting, and to the right a forest plot over settings.

    In a cell, colour and dot are ρ within runs, the bar is its interval, and the dot's shape is
    the strongest null model that it beats. The forest plot has the estimate, its interval, and the
    prediction interval for the next problem.
    """
    settings = list(datasets)
    associations = _select(tables["associations"], settings)
    by_measure = associations.groupby("measure", sort=False)["estimate"]
    is_known = by_measure.transform("count") > 0
    unknown = list(dict.fromkeys(associations[~is_known]["measure"]))
    associations = associations[is_known]
    measures = sorted(
        dict.fromkeys(associations["measure"]), key=lambda name: split_operator(name)[0] != ""
    )

    if not measures:
        return draw_sentence("No correlation could be computed in any setting.", style)
    names = _wrapped_titles(datasets)
    width = float(np.clip(_room_for_cells(style) / len(settings), *CELL_WIDTHS)) * len(settings)
    page_width = NAMES_WIDTH + width + FOREST_WIDTH
    other_height = OTHER_HEIGHT + (0 if len(settings) < FEW else LONGEST_TITLE)
    row_height = (MAX_HEIGHT * page_width - other_height) / len(measures)
    row_height = float(np.clip(row_height, *ROW_HEIGHTS))
    size = (page_width, row_height * max(len(measures), 4) + other_height)
    figure, (cells, forest) = plt.subplots(
        1, 2, figsize=size, width_ratios=[width, FOREST_WIDTH], sharey=True
    )
    _draw_cells(cells, associations, measures, names, style)
    _draw_forest(forest, _select_consistency(tables["consistency"], measures), measures, style)
    _add_colorbar(figure, cells, style)
    _add_note(figure, unknown, style)
    _add_legend(figure)
    panels = {("cells", "all"): cells, ("forest", "all"): forest}
    return finish(figure, panels, style, legend=False)


def _wrapped_titles(datasets: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the titles of settings; with many, they are written upwards."""
    letters = 16 if len(datasets) < FEW else 24
    titles = setting_titles(datasets)
    return {name: textwrap.fill(title, letters) for name, title in titles.items()}


def _room_for_cells(style: Style) -> float:
    """Compute the inches between the names of measures and the forest plot."""
    return style.widths["page"] - NAMES_WIDTH - FOREST_WIDTH


def _select(table: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Select one row per measure and setting: that of the explanation."""
    wanted = {"level": "within_run", "arm": EXPLAINED_ARM, "outcome": OUTCOME}
    is_wanted = (table[list(wanted)] == pd.Series(wanted)).all(axis=1)
    table = table[is_wanted & table["setting"].isin(settings)]
    return preferred_variants(table, ["setting", "measure"])


def _select_consistency(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Select the rows of the meta-analysis that the forest plot shows."""
    return table[
        (table["association"] == "within_run")
        & (table["outcome"] == OUTCOME)
        & table["measure"].isin(measures)
        & table["estimate"].notna()
    ]


def _draw_cells(
    axis: Axes,
    associations: pd.DataFrame,
    measures: Sequence[str],
    names: Mapping[str, str],
    style: Style,
) -> None:
    """Draw the heat map, with a dot and an interval in each cell."""
    settings = list(names)
    estimates = associations.pivot_table(
        index="measure", columns="setting", values="estimate", dropna=False, sort=False
    ).reindex(measures, columns=settings)
    axis.imshow(
        np.ma.masked_invalid(estimates.to_numpy(float)),
        cmap=style.signed,
        vmin=-1,
        vmax=1,
        aspect="auto",
        alpha=0.55,
    )
    has_room = len(settings) < FEW
    for _, row in associations.iterrows():
        x, y = settings.index(row["setting"]), measures.index(row["measure"])
        if np.isnan(row["estimate"]):
            reason = str(row["note"]).rpartition("; ")[2] if has_room else "–"
            axis.text(
                x, y, reason, ha="center", va="center", fontsize=SMALL_FONT - 2, color=style.quiet
            )
        else:
            _draw_correlation(axis, x, y, row)
    _draw_cell_borders(axis, len(measures), len(settings))
    axis.set_xticks(range(len(settings)), list(names.values()), rotation=0 if has_room else 90)
    axis.tick_params(axis="x", top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.set_yticks(range(len(measures)), [one_line_name(name) for name in measures])
    axis.set_ylim(len(measures) - 0.5, -0.5)
    axis.grid(visible=False)


def _draw_correlation(axis: Axes, x: int, y: int, row: pd.Series) -> None:
    """Draw a correlation and its interval in a cell, whose centre is zero."""
    interval = np.clip([row["low"], row["high"]], -1, 1) * UNIT + x
    axis.plot(interval, [y, y], color="black", linewidth=0.7)
    mark = MARKS[str(row["strongest_null_model"]) or "none"]
    axis.plot(
        x + UNIT * row["estimate"],
        y,
        marker=mark.marker,
        color="black",
        markerfacecolor=mark.fill,
        markersize=2.5,
        markeredgewidth=0.5,
    )


def _draw_cell_borders(axis: Axes, row_count: int, column_count: int) -> None:
    """Draw white borders between cells, and a thin white line at each cell's zero."""
    bottom, right = row_count - 0.5, column_count - 0.5
    axis.vlines(range(column_count), -0.5, bottom, color="white", linewidth=0.4)
    axis.vlines(np.arange(column_count + 1) - 0.5, -0.5, bottom, color="white", linewidth=3)
    axis.hlines(np.arange(row_count + 1) - 0.5, -0.5, right, color="white", linewidth=1)
    axis.spines[:].set_visible(False)


def _draw_forest(
    axis: Axes, consistency: pd.DataFrame, measures: Sequence[str], style: Style
) -> None:
    """Draw each measure over all settings: estimate, interval and, paler, prediction interval."""
    for _, row in consistency.iterrows():
        y = measures.index(row["measure"])
        axis.plot(
            [row["prediction_low"], row["prediction_high"]],
            [y, y],
            color=style.quiet,
            linewidth=3,
            alpha=0.3,
            solid_capstyle="butt",
        )
        axis.plot([row["low"], row["high"]], [y, y], color="black", linewidth=0.9)
        axis.plot(row["estimate"], y, "o", color="black")
        if row["claim"] != 0:
            as_claimed = f"{round(row['as_claimed'] * row['settings'])}/{row['settings']}"
            axis.text(1.05, y, as_claimed, fontsize=SMALL_FONT, va="center", color=style.quiet)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_xlim(-1, 1)
    axis.set_xlabel("ρ over settings")
    axis.set_title("all settings (right: how many\nhave the claimed sign)")
    axis.tick_params(labelleft=False)


def _add_colorbar(figure: Figure, cells: Axes, style: Style) -> None:
    """Add the colour bar of the heat map."""
    figure.colorbar(
        mpl.cm.ScalarMappable(Normalize(-1, 1), style.signed),
        ax=cells,
        orientation="horizontal",
        label="ρ within runs",
        aspect=40,
        fraction=0.03,
        pad=0.02,
    )


def _add_note(figure: Figure, unknown: Sequence[str], style: Style) -> None:
    """List below the figure the measures without a correlation in any setting."""
    if unknown:
        names = ", ".join(map(one_line_name, unknown))
        text = f"constant, or measured too seldom, in every setting: {names}"
        letters_per_line = int(18 * figure.get_figwidth())
        wrapped = textwrap.fill(text, letters_per_line)
        figure.supxlabel(wrapped, fontsize=SMALL_FONT, color=style.quiet)


def _add_legend(figure: Figure) -> None:
    """Add a legend of the dots' shapes."""
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            color="black",
            marker=mark.marker,
            markerfacecolor=mark.fill,
            label=mark.label,
        )
        for mark in MARKS.values()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=3 if figure.get_figwidth() > 5 else 2,
        title="strongest null model that it beats",
        title_fontsize="small",
    )
