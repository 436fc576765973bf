"""Curvature operators side by side at each task's start: rank, scale, sign, and the gradient's share in the top directions."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity import figures

ROWS = {
    "effective_rank": "effective rank",
    "entropy_rank": "entropy rank",
    "top_eigenvalue": "top eigenvalue",
    "gradient_overlap": "share of gradient\nin top directions",
    "negative_fraction": "negative fraction",
}
SHARES = ("gradient_overlap", "negative_fraction")


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The arm without an intervention, on the coming task's data, all layers together; an operator that was not measured has no line."""
    figure, axes = figures.panels(len(ROWS), len(datasets), height=1.2)
    for column, (setting, data) in zip(axes.T, datasets.items(), strict=True):
        column[0].set_title(figures.title(setting))
        for axis, name in zip(column, ROWS, strict=True):
            for operator in figures.OPERATORS:
                _curve(axis, data, operator, name)
            if not axis.lines:
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
            elif name in SHARES:
                axis.set_ylim(-0.02, 1.02)
            else:
                axis.set_yscale("log")
        column[-1].set_xlabel("task")
    for axis, label in zip(axes[:, 0], ROWS.values(), strict=True):
        axis.set_ylabel(label)
    figures.legend(figure, axes)
    figure.align_ylabels()
    return figure


def _curve(axis: Axes, data: xr.Dataset, operator: str, name: str) -> None:
    """The mean over seeds with its interval, and bars for the estimates' own errors."""
    values = figures.series(data, f"{operator}_{name}", "none", block="all")
    label, colour = figures.OPERATORS[operator]
    figures.curve(axis, values, label, "none", color=colour, marker=".", markersize=3)
    errors = figures.series(data, f"{operator}_{name}_standard_error", "none", block="all").mean("seed").dropna("task")
    errors = errors[errors > 0]
    if errors.size:
        means = values.mean("seed").sel(task=errors.task)
        axis.errorbar(errors.task, means, errors, fmt="none", ecolor=colour, elinewidth=0.7, capsize=1.5)
