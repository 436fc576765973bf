"""Whole spectra over time: how eigenvalues lie at every measured task, and the first beside the last; a column per setting."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.ndimage import gaussian_filter1d

from plasticity.report import panels as drawing
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "spectra over time"
TABLES = ()
BEND = 0.01  # share of the largest magnitude up to which the axis is linear: that of the densities in the datasets
WIDTH = 0.05  # deviation of the kernel on that axis: theirs, too
PLACES = 84  # on that axis
FAINTEST = 1e-3  # of the densest place: what is less dense is as pale


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention, on the coming task's data, all layers together: means over seeds."""
    there = drawing.operators_of(datasets) or ["fisher"]
    rows: dict[str, str] = {}
    apart: dict[str, str] = {}
    for operator in there:
        of = drawing.OPERATORS[operator]
        rows |= {
            f"{operator} over tasks": f"{of}: λ over\nlargest |λ|",
            f"{operator} first and last": f"{of}:\n",
        }
        apart[f"{operator} first and last"] = (
            "λ over largest |λ|" if _estimated(datasets, operator) else "index of the eigenvalue"
        )
        rows[f"{operator} first and last"] += (
            "density" if _estimated(datasets, operator) else "eigenvalue"
        )
    apart |= {f"{operator} over tasks": "task" for operator in there}
    figure, panels = drawing.grid(rows, drawing.titles(datasets), style, height=1.15, apart=apart)
    for setting, data in datasets.items():
        for operator in there:
            _over_tasks(panels[f"{operator} over tasks", setting], data, operator)
            _first_and_last(
                panels[f"{operator} first and last", setting],
                data,
                operator,
                _estimated(datasets, operator),
                style,
            )
            panels[f"{operator} over tasks", setting].tick_params(
                labelleft=list(datasets).index(setting) % style.panels == 0
            )
    return drawing.finish(figure, panels, style)


def _estimated(datasets: Mapping[str, xr.Dataset], operator: str) -> bool:
    """Whether an operator's eigenvalues were not all found, in any setting."""
    name = f"{operator}_trace_standard_error"
    return any(
        bool(drawing.series(data, name, "none", block="all").max() > 0)
        for data in datasets.values()
    )


def _over_tasks(axis: Axes, data: xr.Dataset, operator: str) -> None:
    """Density as colour: tasks across, eigenvalues up."""
    tasks, grid, density = _density(data, operator)
    if not len(tasks):
        return
    shown = grid >= (-1.05 if _estimated({"": data}, operator) else -0.1)
    largest = float(density.max())
    scale = LogNorm(largest * FAINTEST, largest)
    image = np.maximum(density[:, shown].T, largest * FAINTEST)
    axis.pcolormesh(tasks, grid[shown], image, norm=scale, shading="nearest", rasterized=True)
    places = (-1, -0.1, 0, 0.1, 1) if grid[shown][0] < -0.5 else (0, 0.01, 0.1, 1)
    axis.set_yticks(_bent(np.array(places)), [f"{place:g}".replace("-", "−") for place in places])
    axis.set_ylim(grid[shown][0], grid[shown][-1])
    axis.grid(visible=False)


def _density(data: xr.Dataset, operator: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured tasks, places on the bent axis, and how densely eigenvalues lie there, shape ``(task, place)``: means over seeds.

    The estimated density; or that of all eigenvalues that were found, smoothed as that is.
    """
    estimated = _estimated({"": data}, operator)
    values = drawing.series(
        data, f"{operator}_{'density' if estimated else 'eigenvalue'}", "none", block="all"
    ).dropna("task", how="all")
    if not values.size or values.ndim < 3:
        return np.empty(0), np.empty(0), np.empty((0, 0))
    if estimated:
        return values.task.values, _bent(values.grid.values), values.mean("seed").values
    largest = abs(values).max("rank")
    bent = _bent((values / largest.where(largest > 0)).values)
    edges = np.linspace(-1.05, 1.05, PLACES + 1)
    counts = [
        np.histogram(bent[:, task][np.isfinite(bent[:, task])], edges)[0]
        for task in range(bent.shape[1])
    ]
    spacing = edges[1] - edges[0]
    smoothed = (
        gaussian_filter1d(np.array(counts, float), WIDTH / spacing, axis=-1, mode="constant")
        / values.sizes["seed"]
    )
    return values.task.values, edges[:-1] + spacing / 2, smoothed


def _bent(values: np.ndarray) -> np.ndarray:
    """Eigenvalues over the largest magnitude as places on the axis that is linear near 0 and logarithmic beyond."""
    return np.asarray(np.arcsinh(values / BEND) / np.arcsinh(1 / BEND))


def _first_and_last(
    axis: Axes, data: xr.Dataset, operator: str, estimated: bool, style: Style
) -> None:
    """Two spectra: all eigenvalues by their index, or the densities."""
    values = drawing.series(
        data, f"{operator}_{'density' if estimated else 'eigenvalue'}", "none", block="all"
    )
    values = values.dropna("task", how="all").mean("seed")
    if not values.size or values.ndim < 2:
        return
    ends = dict.fromkeys((0, values.sizes["task"] - 1))
    for place, shade in zip(ends, mpl.colormaps[style.sequence]([0.0, 0.7]), strict=False):
        spectrum, label = values.isel(task=place), "last measured task" if place else "first task"
        x = _bent(spectrum.grid.values) if estimated else spectrum["rank"].values + 1
        there = np.isfinite(spectrum.values) & (
            spectrum.values > 1e-12 * np.nanmax(spectrum.values)
        )
        axis.plot(
            x[there],
            spectrum.values[there],
            color=shade,
            linestyle="-" if place else "--",
            label=label,
        )
    axis.set_yscale("log")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], axis.get_ylim()[1] / 1e6))
    drawing.logarithmic(axis)
    if estimated:
        axis.set_xticks(_bent(np.array([-1, -0.1, 0, 0.1, 1])), ["−1", "−.1", "0", ".1", "1"])
    else:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
