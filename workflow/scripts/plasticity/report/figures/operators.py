"""Rank, scale and sign of all curvature operators over tasks, and how far their ranks agree."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.config.quantities import SPECTRUM_NUMBERS, operator_name, split_operator
from plasticity.report.panels import (
    curve,
    finish,
    grid,
    make_logarithmic,
    measured_operators,
    series,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "agreement of operators"
TABLES = ("redundancy",)
SETTINGS_PER_PAGE = 4
NUMBERS = ("effective_rank", "entropy_rank", "top_eigenvalue", "negative_fraction")
AGREEMENT = "agreement"
NARROW_RANGE = 5  # of the limits of an axis


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per number, with a line per operator, and a row of rank correlations.

    All are of the arm without an intervention, of the whole network, on the next task's data.
    """
    rows = {number: SPECTRUM_NUMBERS[number].label for number in NUMBERS}
    rows[AGREEMENT] = "pairs of ranks"
    own_xlabels = {AGREEMENT: "Spearman's ρ"}
    figure, panels = grid(rows, titles(datasets), style, height=1.0, own_xlabels=own_xlabels)
    table = tables["redundancy"]
    table = table[(table["association"] == "within_run") & table["setting"].isin(datasets)]
    is_known = table["estimate"].notna().groupby([table["first"], table["second"]]).transform("any")
    table = table[is_known]
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    for setting, data in datasets.items():
        for number in NUMBERS:
            for operator in measured_operators(datasets):
                _draw_operator(panels[number, setting], data, operator, number, style)
            if number != "negative_fraction":
                _make_logarithmic(panels[number, setting])
        of_setting = table[table["setting"] == setting]
        _draw_agreement(panels[AGREEMENT, setting], of_setting, pairs, style)
    for left, right in pairwise(panels[AGREEMENT, setting] for setting in datasets):
        right.sharey(left)
        right.tick_params(labelleft=False)
    return finish(figure, panels, style)


def _draw_operator(axis: Axes, data: xr.Dataset, operator: str, number: str, style: Style) -> None:
    """Draw the mean over seeds with its interval, and bars for the margins of error.

    A bar that would reach below zero, where no number but an eigenvalue can be, ends there or at
    the smallest value of the line.
    """
    line_options = style.of_operator(operator)
    values = series(data, f"{operator}_{number}", "none", block="all")
    if not curve(axis, values, style, operator_name(operator), **line_options):
        return

    measured = values.dropna("task", how="all")
    seeds = measured.dropna("seed").seed  # those of the line
    margins = series(data, f"{operator}_{number}_margin", "none", block="all").sel(seed=seeds)
    mean_margins = margins.mean("seed").dropna("task")
    mean_margins = mean_margins[mean_margins > 0]
    if mean_margins.size:
        middle = values.sel(seed=seeds).mean("seed").sel(task=mean_margins.task)
        lowest = 0 if number == "negative_fraction" else float(measured.min()) / 2
        below = np.minimum(mean_margins, np.maximum(middle - lowest, 0))
        axis.errorbar(
            mean_margins.task,
            middle,
            np.stack([below, mean_margins]),
            fmt="none",
            ecolor=line_options["color"],
            elinewidth=0.7,
            capsize=1.5,
        )


def _make_logarithmic(axis: Axes) -> None:
    """Make the y axis logarithmic; a narrow range has a few round numbers."""
    make_logarithmic(axis)
    low, high = axis.get_ylim()
    if axis.has_data() and high < NARROW_RANGE * low:
        axis.yaxis.set_major_locator(MaxNLocator(4))


def _draw_agreement(
    axis: Axes, table: pd.DataFrame, pairs: Sequence[tuple[str, str]], style: Style
) -> None:
    """Draw correlations over tasks between pairs of ranks, with their intervals.

    Args:
        axis: the panel.
        table: redundancy of ranks in one setting.
        pairs: of measures, from the top of the panel to its bottom.
        style: the style of figures.
    """
    rows = table[np.isfinite(table["estimate"])] if pairs else table
    if rows.empty:
        return
    y = np.array([pairs.index(pair) for pair in zip(rows["first"], rows["second"], strict=True)])
    low, high = rows["low"].clip(-1, 1), rows["high"].clip(-1, 1)
    axis.hlines(y, low, high, color=style.quiet, linewidth=0.8)
    axis.plot(rows["estimate"], y, "o", color="black")
    axis.set(
        xlim=(-1.05, 1.05),
        ylim=(len(pairs) - 0.5, -0.5),
        yticks=range(len(pairs)),
        yticklabels=[f"{_ranked(first)} – {_ranked(second)}" for first, second in pairs],
    )


def _ranked(measure: str) -> str:
    """Name what a measure is the rank of."""
    operator, _ = split_operator(measure)
    return operator_name(operator) if operator else "features"
