"""Draw what figures share: grids of panels, curves with intervals, labels at the ends of lines.

This module never imports torch.
"""

import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from plasticity.config import quantities, registry
from plasticity.config import titles as config_titles
from plasticity.config.models import BASELINE
from plasticity.config.quantities import MAIN_OPERATOR, RANKS
from plasticity.report.style import Style
from plasticity.statistics import setting_arrays
from plasticity.statistics.resampling import t_interval
from plasticity.training.outcomes import stages

Panels = dict[tuple[str, str], Axes]  # by row and column

REFERENCES = {"none": "no intervention", BASELINE: "fresh network per task"}
COMBINED_BLOCKS = ("last_two", "all")
TITLE_WIDTH = 24  # letters in a line of a panel's title
SMALL_FONT = 6  # points
MAX_HEIGHT = 1.4  # of a figure, as a share of its width
BAND_MARGIN = 0.35  # inches of a band for titles and the label of the x axis
PAGE_MARGIN = 0.2  # inches of a page for the legend


def grid(
    rows: Mapping[str, str],
    columns: Mapping[str, str],
    style: Style,
    height: float,
    xlabel: str = "task",
    own_xlabels: Mapping[str, str] | None = None,
) -> tuple[Figure, Panels]:
    """Make a grid of panels with one row per quantity and one column per setting.

    Columns that do not fit on the page continue in a further band of rows. If a band would be
    taller than a page, its panels are lower. A figure with few columns is wide enough that it is
    not taller than `MAX_HEIGHT` times its width.

    Args:
        rows: label of the y axis for each row.
        columns: title of each column.
        style: the style of figures.
        height: of a panel, in inches.
        xlabel: label of the x axis that rows share.
        own_xlabels: rows that do not share the x axis, with the label of theirs.

    Returns:
        The figure, and its panels by row and column.
    """
    own_xlabels = own_xlabels or {}
    columns_per_band = min(len(columns), style.panels)
    band_count = -(-len(columns) // columns_per_band)
    tallest_band = MAX_HEIGHT * style.widths["page"] - BAND_MARGIN - PAGE_MARGIN
    height = min(height, tallest_band / len(rows))
    total_height = band_count * (len(rows) * height + BAND_MARGIN) + PAGE_MARGIN
    width = max(style.width(columns_per_band), total_height / MAX_HEIGHT)
    figure, axes = plt.subplots(
        band_count * len(rows),
        columns_per_band,
        figsize=(min(width, style.widths["page"]), total_height),
        squeeze=False,
    )

    panels: Panels = {}
    first_column: dict[str, Axes] = {}
    for position, (name, title) in enumerate(columns.items()):
        band_index, column = divmod(position, columns_per_band)
        first_row = band_index * len(rows)
        column_axes = axes[first_row : first_row + len(rows), column]
        column_axes[0].set_title(title)
        by_row = dict(zip(rows, column_axes, strict=True))
        first_column = first_column or by_row
        _share_axes(by_row, first_column, own_xlabels)
        _label_axes(by_row, rows, xlabel, own_xlabels, is_leftmost=column == 0)
        panels |= {(row, name): axis for row, axis in by_row.items()}

    # one call for all bands would take time quadratic in the number of rows
    for left_axes in np.split(axes[:, 0], band_count):
        figure.align_ylabels(list(left_axes))
    for axis in axes.flat[::-1]:
        if axis not in panels.values():
            axis.remove()
    return figure, panels


def _share_axes(
    column: Mapping[str, Axes], first_column: Mapping[str, Axes], own_xlabels: Mapping[str, str]
) -> None:
    """Share the x axis within a column, and comparable y axes with the first column."""
    shared_rows = [row for row in column if row not in own_xlabels]
    for row, axis in column.items():
        if row in shared_rows[1:]:
            axis.sharex(column[shared_rows[0]])
        if quantities.describe(row).is_share and axis is not first_column[row]:
            axis.sharey(first_column[row])


def _label_axes(
    column: Mapping[str, Axes],
    ylabels: Mapping[str, str],
    xlabel: str,
    own_xlabels: Mapping[str, str],
    is_leftmost: bool,
) -> None:
    """Label y axes in the leftmost column only, and the shared x axis in its last row only."""
    shared_rows = [row for row in column if row not in own_xlabels]
    for row, axis in column.items():
        if is_leftmost:
            axis.set_ylabel(ylabels[row])
        elif quantities.describe(row).is_share:
            axis.tick_params(labelleft=False)
        if row in own_xlabels or row == shared_rows[-1]:
            axis.set_xlabel(own_xlabels.get(row, xlabel))
        else:
            axis.tick_params(labelbottom=False)


def finish(figure: Figure, panels: Panels, style: Style, legend: bool = True) -> Figure:
    """Mark empty panels as not measured, and add one legend above all panels."""
    for axis in panels.values():
        if not axis.has_data():
            _mark_not_measured(axis, style)
    if legend:
        _add_legend_of_panels(figure, panels)
    return figure


def _mark_not_measured(axis: Axes, style: Style) -> None:
    """Write into an empty panel that its quantity was not measured."""
    axis.text(
        0.5,
        0.5,
        "not measured",
        transform=axis.transAxes,
        ha="center",
        va="center",
        color=style.quiet,
    )
    axis.set(xticks=[], yticks=[])


def _add_legend_of_panels(figure: Figure, panels: Panels) -> None:
    """Add one legend with every label that occurs in a panel."""
    by_label: dict[str, Any] = {}
    for axis in panels.values():
        handles, labels = axis.get_legend_handles_labels()
        by_label.update(zip(labels, handles, strict=True))
    add_legend(figure, by_label)


def add_legend(figure: Figure, by_label: Mapping[str, Any]) -> None:
    """Add a legend above all panels.

    Args:
        figure: the figure.
        by_label: what each label stands for; without labels there is no legend.
    """
    if not by_label:
        return
    entry_width = 0.05 * max(map(len, by_label)) + 0.4  # inches, about
    columns = max(1, int(figure.get_figwidth() / entry_width))
    figure.legend(
        by_label.values(),
        by_label.keys(),
        loc="outside upper center",
        ncols=min(len(by_label), columns),
    )


def draw_over_tasks(
    panels: Panels, datasets: Mapping[str, xr.Dataset], rows: Iterable[str], style: Style
) -> None:
    """Draw quantities over tasks for the arm without an intervention and for the baseline.

    Args:
        panels: one per quantity and setting.
        datasets: by setting.
        rows: names of outcomes and measures.
        style: the style of figures.
    """
    for name in rows:
        for setting, data in datasets.items():
            for arm, label in REFERENCES.items():
                values = series(data, name, arm)
                curve(panels[name, setting], values, style, label, **style.of_arm(arm))


def series(
    data: xr.Dataset, name: str, arm: str, evaluation_point: str = "next", block: str | None = None
) -> xr.DataArray:
    """Select one arm's values of an outcome or a measure.

    Args:
        data: dataset of a setting.
        name: of the outcome or measure.
        arm: its name.
        evaluation_point: on which a measure was taken.
        block: of the parameters. By default the last block that has values: that of the whole
            network, or for the feature rank the last hidden layer.

    Returns:
        Values with dims ``(seed, task, …)``, without ``task`` if the data hold means of stages; all
        NaN if the study did not measure them.
    """
    missing = data["final_error"].isel(arm=0, drop=True) * np.nan
    if name not in data or arm not in data.arm:
        return missing
    values = data[name].sel(arm=arm)
    if "evaluation_point" in values.dims:
        if evaluation_point not in data.evaluation_point:
            return missing
        values = values.sel(evaluation_point=evaluation_point)
    if "block" in values.dims:
        if block is None:
            values = values.dropna("block", how="all")
            if values.sizes["block"] == 0:
                return missing
            values = values.isel(block=-1)
        elif block in values.block:
            values = values.sel(block=block)
        else:
            return missing
    return values.transpose("seed", "task", ..., missing_dims="ignore")


def stage_means(curves: xr.DataArray) -> xr.DataArray:
    """Average curves over the tasks of each stage: early, late and all.

    Args:
        curves: values of each task, with dim ``task``; or their means, as published data hold them.

    Returns:
        Means with dim ``stage`` instead of ``task``; NaN where a task of the stage has a gap.
    """
    if "stage" in curves.dims:
        return curves
    means = {
        stage: curves.isel(task=tasks).mean("task", skipna=False)
        for stage, tasks in stages(curves.sizes["task"]).items()
    }
    return xr.concat(means.values(), dim=pd.Index(means, name="stage"))


def curve(
    axis: Axes,
    values: xr.DataArray,
    style: Style,
    label: str,
    along: str = "task",
    **line_options: Any,
) -> bool:
    """Draw the mean over seeds, with a band that is the 95 % interval of that mean.

    Tasks that were not measured are left out. So are seeds with a gap where others have none (a
    diverged run), and a remark above the panel counts the seeds that remain. The panel is high
    enough for all seeds, but not always for the band.

    Args:
        axis: the panel.
        values: dims ``(seed, along)``, in any order.
        style: the style of figures.
        label: of the line.
        along: dim of the x axis.
        line_options: of matplotlib; they include ``color``.

    Returns:
        Whether a line was drawn.
    """
    if along not in values.dims:
        return False
    measured = values.dropna(along, how="all")
    if not measured.size:
        return False
    complete = measured.dropna("seed", how="any")
    if complete.sizes["seed"] < values.sizes["seed"]:
        seeds = f"{complete.sizes['seed']} of {values.sizes['seed']} seeds"
        add_remark(axis, f"{label}: {seeds}", style)
    if not complete.size:
        return False

    x = complete[along].values
    runs = complete.transpose(along, "seed").values
    marker = "o" if len(x) == 1 else None
    axis.plot(x, runs.mean(axis=1), label=label, marker=marker, **line_options)
    extremes = np.column_stack([runs.min(axis=1), runs.max(axis=1)])
    axis.update_datalim(np.column_stack([np.repeat(x, 2), extremes.ravel()]))
    low, high = t_interval(runs)
    if np.isfinite(low).all():
        draw_band(axis, x, low, high, line_options["color"], style)
    axis.autoscale_view()
    return True


def draw_band(
    axis: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, style: Style
) -> None:
    """Draw an interval along a line, without widening the panel."""
    interval = FillBetweenPolyCollection(
        "x", x, low, high, color=colour, alpha=style.band, linewidth=0
    )
    axis.add_collection(interval, autolim=False)


def add_remark(axis: Axes, text: str, style: Style, colour: str = "") -> None:
    """Write a line of small text above a panel, or below its title if it has one."""
    if axis.get_title():
        axis.set_title(f"{axis.get_title()}\n{text}")
        return
    previous = axis.get_title(loc="right")
    combined = f"{previous}\n{text}" if previous else text
    axis.set_title(combined, loc="right", fontsize=SMALL_FONT, color=colour or style.quiet, pad=2)


def label_ends(axis: Axes, height: float) -> None:
    """Write each line's label at its right end, moved up or down until no two touch.

    Args:
        axis: the panel.
        height: of the panel, in inches.
    """
    lines = [line for line in axis.lines if not str(line.get_label()).startswith("_")]
    if not lines:
        return
    axis.get_ylim()  # applies pending autoscaling, on which transData depends
    ends = [np.column_stack(line.get_data())[-1] for line in lines]
    to_axes_fraction = axis.transAxes.inverted()
    wanted = to_axes_fraction.transform(axis.transData.transform(ends))[:, 1]
    line_height = (SMALL_FONT + 1.0) / (72 * 0.8 * height)
    for line, y in zip(lines, spread_apart(wanted, line_height), strict=True):
        axis.annotate(
            str(line.get_label()),
            (1.02, y),
            xycoords="axes fraction",
            va="center",
            fontsize=SMALL_FONT,
            color=line.get_color(),
            annotation_clip=False,
        )


def make_logarithmic(axis: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers at more than one tick."""
    if not axis.has_data():
        return
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    is_narrow = high < 50 * low
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def spread_apart(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Move positions at least a gap apart, in the same order, as little as possible.

    The sum of squared moves is minimal. Subtracting ``k · gap`` from the k-th position turns this
    into isotonic regression, which is solved by pooling adjacent violators.

    Args:
        wanted: positions, shape ``(label,)``.
        gap: least distance between neighbours.

    Returns:
        Positions, shape ``(label,)``.
    """
    order = np.argsort(wanted, kind="stable")
    means: list[float] = []
    counts: list[int] = []
    for index, position in enumerate(wanted[order]):
        means.append(position - index * gap)
        counts.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            mean, count = means.pop(), counts.pop()
            pooled_count = counts[-1] + count
            means[-1] = (means[-1] * counts[-1] + mean * count) / pooled_count
            counts[-1] = pooled_count
    positions = np.empty(len(order))
    positions[order] = np.repeat(means, counts) + np.arange(len(order)) * gap
    return positions


def titles(datasets: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the title of each setting, wrapped to the width of a panel."""
    return {
        name: "\n".join(textwrap.wrap(title, TITLE_WIDTH))
        for name, title in setting_titles(datasets).items()
    }


def setting_titles(datasets: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the title of each setting in one line, from the config that its dataset stores."""
    return setting_arrays.setting_titles(datasets)


def short(arm: str) -> str:
    """Return the name of an arm for a figure: ``l2(strength=0.01)`` → ``L2 0.01``."""
    return config_titles.arm_title(arm).replace("$", r"\$")  # a dollar sign starts a formula


def measured_operators(datasets: Mapping[str, xr.Dataset]) -> list[str]:
    """List the operators that were measured in at least one setting."""
    variables = {str(name) for data in datasets.values() for name in data.data_vars}
    return [name for name in registry.names("operators") if f"{name}_trace" in variables]


def has_estimates(datasets: Mapping[str, xr.Dataset], operator: str) -> bool:
    """Tell whether the spectra of an operator over all layers are estimates in some setting."""
    name = f"{operator}_trace_margin"
    return any(
        bool(series(data, name, "none", block="all").max() > 0) for data in datasets.values()
    )


def main_operator(datasets: Mapping[str, xr.Dataset]) -> str:
    """Return the operator that stands for curvature: the Fisher, or the first that was measured."""
    measured = measured_operators(datasets)
    if not measured or MAIN_OPERATOR in measured:
        return MAIN_OPERATOR
    return measured[0]


def primary_rank(datasets: Mapping[str, xr.Dataset]) -> str:
    """Return the rank that stands for curvature, by the config with which datasets were made."""
    settings = [json.loads(data.attrs.get("settings", "{}")) for data in datasets.values()]
    return next((values["primary"] for values in settings if "primary" in values), RANKS[0])


def primary_measure(datasets: Mapping[str, xr.Dataset]) -> str:
    """Return the measure that stands for curvature: a rank of the main operator."""
    return f"{main_operator(datasets)}_{primary_rank(datasets)}"


def draw_sentence(text: str, style: Style) -> Figure:
    """Make a low figure that only says why there is nothing to draw."""
    figure, axis = plt.subplots(figsize=(style.width(style.panels), 0.6))
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=style.quiet)
    return figure
