"""How error and curvature rank of treated copies change with the strength of the treatment."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from plasticity.config.models import FAMILIES, method_of
from plasticity.config.quantities import one_line_name
from plasticity.config.titles import method_title
from plasticity.report.panels import (
    Panels,
    draw_band,
    draw_sentence,
    finish,
    grid,
    primary_measure,
    setting_titles,
)
from plasticity.report.style import Style
from plasticity.report.treated import (
    FAMILY_LABELS,
    at_telling_task,
    of_quantity,
    of_treatments,
    why_nothing,
)

CATEGORY = "4 Interventions"
TITLE = "dose and response"
TABLES = ("treatments",)
SETTINGS_PER_PAGE = 8
OUTCOME = "final_error"
MARKERS = "osD^vPX<>"
HEIGHT = 1.15


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a column per treatment with several strengths, and a line per setting.

    Changes are to the copy without a treatment, with intervals over seeds. All copies are of the
    arm without an intervention.
    """
    quantities = [OUTCOME, primary_measure(datasets)]
    table = at_telling_task(of_treatments(tables["treatments"], datasets))
    if of_quantity(table, OUTCOME).empty:
        return draw_sentence(why_nothing(tables["treatments"]), style)
    table = _with_several_doses(table)
    columns = _columns(table)
    if not columns:
        return draw_sentence("No treatment of this study has two strengths.", style)
    names = setting_titles(datasets)
    figure, panels = grid(
        {name: _label(name) for name in quantities},
        columns,
        style,
        HEIGHT,
        xlabel="strength",
    )
    for quantity in quantities:
        rows = of_quantity(table, quantity)
        for (name, setting), line in rows.groupby(["name", "setting"], sort=False):
            look = _look(list(datasets), str(setting), style)
            _draw_line(panels[quantity, str(name)], line, names[str(setting)], look, style)
    for axis in panels.values():
        if axis.has_data():
            axis.axhline(0, color="black", linewidth=0.6)
    _mark_strengths(panels, table)
    _share_changes(panels, quantities, style)
    return finish(figure, panels, style)


def _with_several_doses(table: pd.DataFrame) -> pd.DataFrame:
    """Select the treatments with several strengths; ``name`` is that without the strength."""
    table = table.assign(name=table["treatment"].map(method_of))
    dose_count = table.groupby("name")["strength"].transform("nunique")
    return table[dose_count > 1]


def _columns(table: pd.DataFrame) -> dict[str, str]:
    """List the treatments, family by family, each with its title."""
    columns = {}
    for family in FAMILIES:
        of_family = table[table["treatment_family"] == family]
        for name, rows in of_family.groupby("name", sort=False):
            tasks = " or ".join(str(task) for task in sorted(set(rows["task"])))
            columns[str(name)] = (
                f"{method_title(str(name))}\n{FAMILY_LABELS[family]}\nbefore task {tasks}"
            )
    return columns


def _label(quantity: str) -> str:
    """Name the change of a quantity, in short lines."""
    return textwrap.fill(f"{one_line_name(quantity)}, change", 16)


def _look(settings: Sequence[str], setting: str, style: Style) -> dict[str, Any]:
    """Choose colour and marker of a setting by its place among all settings."""
    index = settings.index(setting)
    # the end of the colour map is too pale for lines
    position = 0.85 * index / max(len(settings) - 1, 1)
    colour = mpl.colors.to_hex(mpl.colormaps[style.sequence](position))
    return {"color": colour, "marker": MARKERS[index % len(MARKERS)]}


def _draw_line(
    axis: Axes, line: pd.DataFrame, title: str, look: Mapping[str, Any], style: Style
) -> None:
    """Draw the change at each strength in one setting, with its interval as a band."""
    line = line.sort_values("strength")
    x = line["strength"].to_numpy(float)
    low, high = line["change_low"].to_numpy(float), line["change_high"].to_numpy(float)
    axis.plot(x, line["change"], label=title, **look)
    if np.isfinite(low).all():
        draw_band(axis, x, low, high, look["color"], style)


def _mark_strengths(panels: Panels, table: pd.DataFrame) -> None:
    """Put the ticks of x axes at the strengths; a wide range is logarithmic."""
    for (_, name), axis in panels.items():
        strengths = sorted(set(table["strength"][table["name"] == name].dropna()))
        if not axis.has_data():
            continue
        if strengths[0] > 0 and strengths[-1] >= 10 * strengths[0]:
            axis.set_xscale("log")
        axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        axis.xaxis.set_minor_locator(NullLocator())


def _share_changes(panels: Panels, quantities: Sequence[str], style: Style) -> None:
    """Give all panels of a quantity the same limits, with numbers at the leftmost only."""
    for quantity in quantities:
        row = [axis for (name, _), axis in panels.items() if name == quantity]
        limits = [axis.get_ylim() for axis in row if axis.has_data()]
        for index, axis in enumerate(row):
            if axis.has_data():
                axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
                axis.tick_params(labelleft=index % style.panels == 0)
