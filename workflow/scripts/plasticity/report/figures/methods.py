"""Error, gap to the baseline and curvature rank over tasks for every method."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from plasticity.config.models import method_of
from plasticity.config.quantities import one_line_name
from plasticity.report.panels import (
    REFERENCES,
    Panels,
    curve,
    draw_sentence,
    finish,
    label_ends,
    primary_measure,
    series,
    setting_titles,
    short,
)
from plasticity.report.style import Style

CATEGORY = "5 Methods"
TITLE = "methods over tasks"
TABLES = ()
SETTINGS_PER_PAGE = 4
ARMS_PER_PANEL = 4  # in addition to the two references
HEIGHT = 1.05  # of a row in inches; rows are lower if there are many
TITLE_HEIGHT = 0.2  # inches of the title above the first row of a setting, and of the headings
MARGIN = 0.4  # inches below the last row
MAX_HEIGHT = 1.38  # of the figure, as a share of its width
LINE_HEIGHT = 10  # of a heading or a remark above a panel, in points
PALEST = 0.5  # share of white in the colour of a method's first arm


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw for each setting as many rows of panels as its arms need, below the setting's title.

    Each quantity has a column, with one heading.
    Settings without an intervention are left out.
    """
    measure = primary_measure(datasets)
    quantities = {name: one_line_name(name) for name in ("final_error", "final_error_gap", measure)}
    rows = _rows(datasets, style)
    if not rows:
        return draw_sentence("No method was trained in these settings.", style)
    width = style.widths["page"]
    others = (len({setting for setting, _ in rows}) + 1) * TITLE_HEIGHT + MARGIN
    height = min(HEIGHT, (MAX_HEIGHT * width - others) / len(rows))
    size = (width, len(rows) * height + others)
    figure, axes = plt.subplots(len(rows), len(quantities), figsize=size, squeeze=False)
    panels = {
        (name, str(index)): axes[index, column]
        for index in range(len(rows))
        for column, name in enumerate(quantities)
    }
    for index, (setting, arms) in enumerate(rows):
        continues_setting = index > 0 and rows[index - 1][0] == setting
        for name in quantities:
            if continues_setting:
                panels[name, str(index)].sharey(panels[name, str(index - 1)])
            _draw_arms(panels, (name, str(index)), datasets[setting], arms, style)
        rightmost = axes[index, -1]
        label_ends(rightmost if rightmost.lines else axes[index, 0], height)
        if index == 0:
            _write_headings(axes[index], list(quantities.values()))
        if not continues_setting:
            _write_title(axes[index, 0], setting_titles(datasets)[setting], index == 0)
    for axis in axes[-1]:
        axis.set_xlabel("task")
    return finish(figure, panels, style, legend=False)


def _write_headings(axes: Sequence[Axes], headings: Sequence[str]) -> None:
    """Write a heading above each column, above remarks."""
    lines_below = max(map(_remark_lines, axes))
    for axis, heading in zip(axes, headings, strict=True):
        _write_above(axis, heading, lines_below, x=0.5, ha="center")


def _write_title(axis: Axes, title: str, has_heading: bool) -> None:
    """Write a setting's title above its first row, at the left, above remarks and a heading."""
    lines_below = _remark_lines(axis) + has_heading
    _write_above(axis, title, lines_below, x=0, ha="left", fontweight="bold")


def _remark_lines(axis: Axes) -> int:
    """Count the lines of remarks above a panel."""
    remarks = axis.get_title(loc="right")
    return remarks.count("\n") + 1 if remarks else 0


def _write_above(axis: Axes, text: str, lines_below: int, x: float, **text_options: Any) -> None:
    """Write a line above a panel and above other lines, at x as a share of the panel."""
    axis.annotate(
        text,
        (x, 1),
        xycoords="axes fraction",
        xytext=(0, LINE_HEIGHT * (lines_below + 0.4)),
        textcoords="offset points",
        va="bottom",
        fontsize=plt.rcParams["axes.titlesize"],
        **text_options,
    )


def _rows(datasets: Mapping[str, xr.Dataset], style: Style) -> list[tuple[str, list[str]]]:
    """Divide the arms of all settings into rows of panels, each with its setting."""
    return [
        (setting, arms) for setting, data in datasets.items() for arms in _divide_arms(data, style)
    ]


def _divide_arms(data: xr.Dataset, style: Style) -> list[list[str]]:
    """Divide the arms of a setting into lots of at most `ARMS_PER_PANEL`.

    The arms of a method stay in one lot if they fit, and no two methods of a lot share a colour.
    """
    arms = [str(arm) for arm in data.arm.values if arm not in REFERENCES]
    lots: list[list[str]] = []
    for _, arms_of_method in groupby(arms, method_of):
        remaining = list(arms_of_method)
        while remaining:
            chunk, remaining = remaining[:ARMS_PER_PANEL], remaining[ARMS_PER_PANEL:]
            colour = style.of_arm(chunk[0])["color"]
            for lot in lots:
                colours = {style.of_arm(arm)["color"] for arm in lot}
                if len(lot) + len(chunk) <= ARMS_PER_PANEL and colour not in colours:
                    lot += chunk
                    break
            else:
                lots.append(chunk)
    return lots


def _draw_arms(
    panels: Panels, key: tuple[str, str], data: xr.Dataset, arms: Sequence[str], style: Style
) -> None:
    """Draw the references and these arms."""
    name, _ = key
    for arm in (*REFERENCES, *arms):
        values = series(data, name, arm)
        curve(panels[key], values, style, _label(arm), **_look(arm, arms, style))


def _label(arm: str) -> str:
    """Name a line at its end, in short lines."""
    return REFERENCES.get(arm) or short(arm)


def _look(arm: str, arms: Sequence[str], style: Style) -> dict[str, Any]:
    """Choose the look of a line: each further arm of a method is darker and thicker."""
    look = style.of_arm(arm)
    same_method = [other for other in arms if method_of(other) == method_of(arm)]
    if len(same_method) < 2:
        return look | {"linewidth": 1.2}
    place = same_method.index(arm)
    white = PALEST * (1 - place / (len(same_method) - 1))
    colour = np.array(to_rgb(look["color"]))
    red, green, blue = colour + white * (1 - colour)
    return look | {"linewidth": 0.9 + 0.5 * place, "color": to_hex((red, green, blue))}
