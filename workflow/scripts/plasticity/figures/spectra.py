"""Whole spectra over time, an operator a row: all eigenvalues by rank, or the density where they are estimated; a column per setting."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity import figures

TASKS = 5  # spectra of so many tasks, from the first to the last measured one
BEYOND = 0.01  # share of the largest magnitude up to which a density's axis is linear


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The arm without an intervention, on the coming task's data, all layers together: means over seeds, the later the lighter."""
    there = [name for name in figures.OPERATORS if any(f"{name}_eigenvalue" in data for data in datasets.values())]
    figure, axes = figures.panels(max(1, len(there)), len(datasets), height=1.8, sharex="none")
    for column, (setting, data) in zip(axes.T, datasets.items(), strict=True):
        column[0].set_title(figures.title(setting))
        for axis, operator in zip(column, there, strict=False):
            _spectra(axis, data, operator)
            if not axis.lines:
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
    for axis, operator in zip(axes[:, 0], there, strict=False):
        if axis.lines:
            axis.legend(handlelength=1)
        kind = "density of eigenvalues" if axis.get_xscale() == "symlog" else "eigenvalue"
        axis.set_ylabel(f"{figures.OPERATORS[operator][0]}:\n{kind}")
    figure.align_ylabels()
    return figure


def _spectra(axis: Axes, data: xr.Dataset, operator: str) -> None:
    """One operator's spectra: the density if any of its eigenvalues were not found."""
    estimated = figures.series(data, f"{operator}_trace_standard_error", "none", block="all").max() > 0
    values = figures.series(data, f"{operator}_{'density' if estimated else 'eigenvalue'}", "none", block="all")
    values = values.dropna("task", how="all").mean("seed")
    tasks = values.task.values[np.unique(np.linspace(0, values.sizes["task"] - 1, TASKS).round().astype(int))] if values.size else []
    for task, shade in zip(tasks, mpl.colormaps["viridis"](np.linspace(0, 0.85, len(tasks))), strict=True):
        spectrum = values.sel(task=task)
        label = f"task {task}"
        if estimated:
            axis.plot(spectrum.grid, spectrum, color=shade, linewidth=1, label=label)
        else:
            spectrum = spectrum[(spectrum > 1e-12 * spectrum.max()).values]
            axis.plot(spectrum["rank"] + 1, spectrum, color=shade, linewidth=1, label=label)
    if not len(tasks):
        return
    if estimated:
        axis.set_xscale("symlog", linthresh=BEYOND)
        axis.set_xticks([-1, -BEYOND, 0, BEYOND, 1], ["−1", "", "0", "", "1"])
        axis.set_xlabel("λ / largest |λ|")
    else:
        axis.set(xscale="log", xlabel="index of the eigenvalue")
    axis.set_yscale("log")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], axis.get_ylim()[1] / 1e8))
