"""Whole spectra over time: density at every measured task, and the first and last spectrum."""

from collections.abc import Mapping
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
        rows[_over_tasks(operator)] = f"{name}: λ over\nlargest |λ|"
        own_xlabels[_over_tasks(operator)] = "task"
        rows[_first_and_last(operator)] = f"{name}:\n{'density' if is_estimated else 'eigenvalue'}"
        own_xlabels[_first_and_last(operator)] = (
            "λ over largest |λ|" if is_estimated else "index of the eigenvalue"
        )
    figure, panels = grid(rows, titles(datasets), style, height=1.15, own_xlabels=own_xlabels)
    for operator in operators:
        _draw_operator(panels, datasets, operator, style)
    return finish(figure, panels, style)


def _over_tasks(operator: str) -> str:
    """Name the row of panels with densities over tasks."""
    return f"{operator} over tasks"


def _first_and_last(operator: str) -> str:
    """Name the row of panels with the first and the last spectrum."""
    return f"{operator} first and last"


def _draw_operator(
    panels: Panels, datasets: Mapping[str, xr.Dataset], operator: str, style: Style
) -> None:
    """Draw both rows of an operator."""
    is_estimated = has_estimates(datasets, operator)
    for position, (setting, data) in enumerate(datasets.items()):
        upper = panels[_over_tasks(operator), setting]
        _draw_densities(upper, data, operator)
        upper.tick_params(labelleft=position % style.panels == 0)
        lower = panels[_first_and_last(operator), setting]
        _draw_first_and_last(lower, data, operator, is_estimated, style)


def _spectra(data: xr.Dataset, operator: str, is_estimated: bool) -> xr.DataArray:
    """Select densities or eigenvalues, dims ``(seed, task, grid)`` or ``(seed, task, rank)``."""
    name = f"{operator}_{'density' if is_estimated else 'eigenvalue'}"
    return series(data, name, "none", block="all").dropna("task", how="all")


def _draw_densities(axis: Axes, data: xr.Dataset, operator: str) -> None:
    """Draw densities as colours, with tasks on the x axis and eigenvalues on the y axis."""
    tasks, positions, density = _density(data, operator)
    if not len(tasks):
        return
    lower_limit = -1.05 if has_estimates({"": data}, operator) else -0.1
    is_shown = positions >= lower_limit
    shown = positions[is_shown]
    largest = float(density.max())
    smallest = largest * DENSITY_RANGE
    axis.pcolormesh(
        tasks,
        shown,
        np.maximum(density[:, is_shown].T, smallest),
        norm=LogNorm(smallest, largest),
        shading="nearest",
        rasterized=True,
    )
    ticks = (-1, -0.1, 0, 0.1, 1) if shown[0] < -0.5 else (0, 0.01, 0.1, 1)
    axis.set_yticks(_to_axis(np.array(ticks)), [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.set_ylim(shown[0], shown[-1])
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
    _draw_spectrum(axis, x, first, color=first_colour, linestyle="--", label="first task")
    if values.sizes["task"] > 1:
        label = "last measured task"
        _draw_spectrum(axis, x, last, color=last_colour, linestyle="-", label=label)

    axis.set_yscale("log")
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom=max(bottom, top / 1e6))
    make_logarithmic(axis)
    if is_estimated:
        ticks = _to_axis(np.array([-1, -0.1, 0, 0.1, 1]))
        axis.set_xticks(ticks, ["−1", "−.1", "0", ".1", "1"])
    else:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())


def _draw_spectrum(axis: Axes, x: np.ndarray, spectrum: np.ndarray, **line_options: Any) -> None:
    """Draw the values of a spectrum that are not negligible relative to the largest."""
    is_drawn = np.isfinite(spectrum) & (spectrum > 1e-12 * np.nanmax(spectrum))
    axis.plot(x[is_drawn], spectrum[is_drawn], **line_options)
