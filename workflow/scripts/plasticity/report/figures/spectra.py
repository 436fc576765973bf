"""Whole spectra over time: density at every measured task, and the first and last spectrum."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.ndimage import gaussian_filter1d

from plasticity.config.quantities import operator_name
from plasticity.report.panels import (
    Panels,
    finish,
    grid,
    has_estimates,
    make_logarithmic,
    measured_operators,
    series,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "spectra over time"
TABLES = ()
SETTINGS_PER_PAGE = 4
# as for the estimated densities in the datasets
LINEAR_LIMIT = 0.01  # share of the largest magnitude up to which the axis is linear
KERNEL_WIDTH = 0.05  # standard deviation on that axis
BINS = 84  # of histograms on that axis
DENSITY_RANGE = 1e-3  # densities below this share of the largest have the same colour
RELATIVE_TICKS = [-1, -0.1, 0, 0.1, 1]  # of eigenvalues over the largest magnitude


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw two rows per operator and a column per setting; all are means over seeds.

    Spectra are those of the arm without an intervention, of the whole network, on the next task's
    data.
    """
    rows: dict[str, str] = {}
    own_xlabels: dict[str, str] = {}
    operators = measured_operators(datasets) or ["fisher"]
    for operator in operators:
        name = operator_name(operator)
        is_estimated = has_estimates(datasets, operator)
        rows[_over_tasks(operator)] = f"{name}\nλ / largest |λ|"
        own_xlabels[_over_tasks(operator)] = "task"
        rows[_first_and_last(operator)] = f"{name}\n{'density' if is_estimated else 'eigenvalue λ'}"
        own_xlabels[_first_and_last(operator)] = (
            "λ / largest |λ|" if is_estimated else "index of the eigenvalue"
        )
    figure, panels = grid(rows, titles(datasets), style, height=1.15, own_xlabels=own_xlabels)
    for operator in operators:
        _draw_operator(panels, datasets, operator, style)
    _add_colorbar(figure, panels)
    return finish(figure, panels, style)


def _add_colorbar(figure: Figure, panels: Panels) -> None:
    """Add a colour bar for all densities, if there are any."""
    meshes = [mesh for axis in panels.values() for mesh in axis.collections]
    if not meshes:
        return
    colorbar = figure.colorbar(
        meshes[0],
        ax=list(panels.values()),
        label="density / largest of the panel",
        shrink=0.5,
        aspect=35,
        pad=0.01,
    )
    colorbar.ax.yaxis.set_major_formatter("{x:g}")
    colorbar.outline.set_visible(False)
    colorbar.ax.minorticks_off()


def _over_tasks(operator: str) -> str:
    """Name the row of panels with densities over tasks."""
    return f"{operator} over tasks"


def _first_and_last(operator: str) -> str:
    """Name the row of panels with the first and the last spectrum."""
    return f"{operator} first and last"


def _draw_operator(
    panels: Panels, datasets: Mapping[str, xr.Dataset], operator: str, style: Style
) -> None:
    """Draw both rows of an operator. All panels of a row have the same ticks."""
    is_estimated = has_estimates(datasets, operator)
    lower_panels = [panels[_first_and_last(operator), setting] for setting in datasets]
    for setting, data in datasets.items():
        _draw_densities(panels[_over_tasks(operator), setting], data, operator, is_estimated)
        lower = panels[_first_and_last(operator), setting]
        _draw_first_and_last(lower, data, operator, is_estimated, style)
    _share_limits([axis for axis in lower_panels if axis.has_data()], is_estimated)
    for position, setting in enumerate(datasets):
        is_leftmost = position % style.panels == 0
        panels[_over_tasks(operator), setting].tick_params(labelleft=is_leftmost)
        panels[_first_and_last(operator), setting].tick_params(labelleft=is_leftmost)


def _spectra(data: xr.Dataset, operator: str, is_estimated: bool) -> xr.DataArray:
    """Select densities or eigenvalues, dims ``(seed, task, grid)`` or ``(seed, task, rank)``."""
    name = f"{operator}_{'density' if is_estimated else 'eigenvalue'}"
    return series(data, name, "none", block="all").dropna("task", how="all")


def _draw_densities(axis: Axes, data: xr.Dataset, operator: str, has_negative: bool) -> None:
    """Draw densities as colours, with tasks on the x axis and eigenvalues on the y axis.

    Args:
        axis: the panel.
        data: dataset of its setting.
        operator: its name.
        has_negative: whether the axis includes negative eigenvalues.
    """
    tasks, positions, density = _density(data, operator)
    if not len(tasks):
        return
    lower_limit = -1.05 if has_negative else -0.1
    is_shown = positions >= lower_limit
    shown = positions[is_shown]
    relative = density[:, is_shown].T / density.max()
    axis.pcolormesh(
        tasks,
        shown,
        np.maximum(relative, DENSITY_RANGE),
        norm=LogNorm(DENSITY_RANGE, 1),
        shading="nearest",
        rasterized=True,
    )
    ticks = RELATIVE_TICKS if has_negative else [0, 0.01, 0.1, 1]
    axis.set_yticks(_to_axis(np.array(ticks)), [_format_tick(tick) for tick in ticks])
    axis.set_ylim(shown[0], shown[-1])
    axis.set_xlim(-0.5, data.sizes["task"] - 0.5)
    axis.grid(visible=False)


def _density(data: xr.Dataset, operator: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute how densely eigenvalues lie on the axis: means over seeds.

    This is the estimated density, or the histogram of exact eigenvalues, smoothed in the same way.

    Returns:
        Measured tasks, shape ``(task,)``; positions on the axis, shape ``(position,)``; densities,
        shape ``(task, position)``. All are empty if nothing was measured.
    """
    is_estimated = has_estimates({"": data}, operator)
    values = _spectra(data, operator, is_estimated)
    if not values.size or values.ndim < 3:
        return np.empty(0), np.empty(0), np.empty((0, 0))
    if is_estimated:
        return values.task.values, _to_axis(values.grid.values), values.mean("seed").values

    largest = abs(values).max("rank")
    positions = _to_axis((values / largest.where(largest > 0)).values)
    edges = np.linspace(-1.05, 1.05, BINS + 1)
    spacing = edges[1] - edges[0]
    counts = []
    for task in range(positions.shape[1]):
        of_task = positions[:, task]
        counts.append(np.histogram(of_task[np.isfinite(of_task)], edges)[0])
    smoothed = gaussian_filter1d(
        np.array(counts, float), KERNEL_WIDTH / spacing, axis=-1, mode="constant"
    )
    return values.task.values, edges[:-1] + spacing / 2, smoothed / values.sizes["seed"]


def _to_axis(values: np.ndarray) -> np.ndarray:
    """Map eigenvalues over the largest magnitude to an axis from −1 to 1.

    It is linear near 0 and logarithmic beyond `LINEAR_LIMIT`.
    """
    return np.asarray(np.arcsinh(values / LINEAR_LIMIT) / np.arcsinh(1 / LINEAR_LIMIT))


def _draw_first_and_last(
    axis: Axes, data: xr.Dataset, operator: str, is_estimated: bool, style: Style
) -> None:
    """Draw the spectra at the first and the last measured task.

    They are densities if estimated, else all eigenvalues by index.
    """
    values = _spectra(data, operator, is_estimated).mean("seed")
    if not values.size or values.ndim < 2:
        return
    first_colour, last_colour = mpl.colormaps[style.sequence]([0.0, 0.7])
    x = _to_axis(values.grid.values) if is_estimated else values["rank"].values + 1
    first, last = values.isel(task=0).values, values.isel(task=-1).values
    _draw_spectrum(axis, x, first, color=first_colour, linestyle="--", label="first measured task")
    if values.sizes["task"] > 1:
        label = "last measured task"
        _draw_spectrum(axis, x, last, color=last_colour, linestyle="-", label=label)

    axis.set_yscale("log")
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom=max(bottom, top / 1e6))
    if not is_estimated:
        axis.set_xscale("log")


def _share_limits(panels: Sequence[Axes], is_estimated: bool) -> None:
    """Give the panels with first and last spectra the same limits and ticks."""
    if not panels:
        return
    bottoms, tops = np.transpose([axis.get_ylim() for axis in panels])
    lefts, rights = np.transpose([axis.get_xlim() for axis in panels])
    for axis in panels:
        axis.set_ylim(bottoms.min(), tops.max())
        axis.set_xlim(lefts.min(), rights.max())
        make_logarithmic(axis)
        if is_estimated:
            ticks = _to_axis(np.array(RELATIVE_TICKS))
            axis.set_xticks(ticks, [_format_tick(tick) for tick in RELATIVE_TICKS])
        else:
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())


def _format_tick(value: float) -> str:
    """Write a number with a minus sign."""
    return f"{value:g}".replace("-", "−")


def _draw_spectrum(axis: Axes, x: np.ndarray, spectrum: np.ndarray, **line_options: Any) -> None:
    """Draw the values of a spectrum that are not negligible relative to the largest."""
    is_drawn = np.isfinite(spectrum) & (spectrum > 1e-12 * np.nanmax(spectrum))
    axis.plot(x[is_drawn], spectrum[is_drawn], **line_options)
