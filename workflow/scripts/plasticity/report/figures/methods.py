"""Error, gap to the baseline and curvature rank over tasks for every method."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.models import method_of
from plasticity.config.quantities import one_line_name
from plasticity.report.panels import (
    REFERENCES,
    Panels,
    curve,
    finish,
    label_ends,
    primary_measure,
    series,
    short,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "5 Methods"
TITLE = "methods over tasks"
TABLES = ()
SETTINGS_PER_PAGE = 7
ARMS_PER_PANEL = 6  # in addition to the references
HEIGHT = 1.25


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw for each setting as many rows of panels as its arms need.

    Settings without an intervention are left out if another setting has one.
    """
    measure = primary_measure(datasets)
    quantities = {name: one_line_name(name) for name in ("final_error", "final_error_gap", measure)}
    rows = _rows(datasets)
    size = (style.widths["page"], len(rows) * HEIGHT + 0.4)
    figure, axes = plt.subplots(len(rows), len(quantities), figsize=size, squeeze=False)
    panels = {
        (name, str(index)): axes[index, column]
        for index in range(len(rows))
        for column, name in enumerate(quantities)
    }
    _label_edges(axes, list(quantities.values()))  # before remarks are added to titles
    for index, (setting, arms) in enumerate(rows):
        continues_setting = index > 0 and rows[index - 1][0] == setting
        for name in quantities:
            if continues_setting:
                panels[name, str(index)].sharey(panels[name, str(index - 1)])
            _draw_arms(panels, (name, str(index)), datasets[setting], arms, style)
        rightmost = axes[index, -1]
        label_ends(rightmost if rightmost.lines else axes[index, 0], HEIGHT)
        axes[index, 0].set_ylabel(titles(datasets)[setting])
    return finish(figure, panels, style, legend=False)


def _rows(datasets: Mapping[str, xr.Dataset]) -> list[tuple[str, list[str]]]:
    """Divide the arms of all settings into rows of panels.

    Returns:
        The setting and the arms of each row. If no setting has an intervention, one row per
        setting without arms.
    """
    rows = [(setting, arms) for setting, data in datasets.items() for arms in _divide_arms(data)]
    return rows or [(setting, []) for setting in datasets]


def _divide_arms(data: xr.Dataset) -> list[list[str]]:
    """Divide the arms of a setting into lots of at most `ARMS_PER_PANEL`.

    The arms of a method stay in one lot if they fit.
    """
    arms = [str(arm) for arm in data.arm.values if arm not in REFERENCES]
    lots: list[list[str]] = []
    for _, arms_of_method in groupby(arms, method_of):
        remaining = list(arms_of_method)
        while remaining:
            chunk, remaining = remaining[:ARMS_PER_PANEL], remaining[ARMS_PER_PANEL:]
            if not lots or len(lots[-1]) + len(chunk) > ARMS_PER_PANEL:
                lots.append([])
            lots[-1] += chunk
    return lots


def _draw_arms(
    panels: Panels, key: tuple[str, str], data: xr.Dataset, arms: Sequence[str], style: Style
) -> None:
    """Draw the references and these arms; each further arm of a method has a thicker line."""
    name, _ = key
    for arm in (*REFERENCES, *arms):
        values = series(data, name, arm)
        width = _line_width(arm, arms)
        curve(panels[key], values, style, short(arm), linewidth=width, **style.of_arm(arm))


def _line_width(arm: str, arms: Sequence[str]) -> float:
    """Choose the width of an arm's line by its place among the arms of its method."""
    same_method = [other for other in arms if method_of(other) == method_of(arm)]
    if len(same_method) < 2:
        return 1.2
    return 0.8 + 0.5 * min(same_method.index(arm), 3)


def _label_edges(axes: np.ndarray, quantities: Sequence[str]) -> None:
    """Write the quantities above the first row, and the x axis below the last."""
    for axis, title in zip(axes[0], quantities, strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("task")
