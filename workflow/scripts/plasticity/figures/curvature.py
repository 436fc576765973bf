"""Loss of plasticity with the curvature beneath: rank, scale, and the rank layer by layer, a column per setting."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import figures


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The Fisher at each task's start, on the new task's data."""
    rows = ("final_error", "fisher_effective_rank", "fisher_top_eigenvalue")
    figure, axes = figures.panels(len(rows) + 1, len(datasets), height=1.2)
    figures.over_tasks(axes[:-1], datasets, rows)
    figures.legend(figure, axes)
    for column, data in zip(axes.T, datasets.values(), strict=True):
        column[3].set_xlabel("task")
        layers = [str(block) for block in data.block.values if block != "all"]
        for layer, shade in zip(layers, mpl.colormaps["viridis"](np.linspace(0, 0.85, len(layers))), strict=True):
            ranks = figures.series(data, "fisher_effective_rank", "none", block=layer)
            figures.curve(column[3], ranks, layer.replace("_", " "), "none", color=shade, linewidth=1)
    axes[3, 0].set_ylabel("effective rank,\nlayer by layer")
    if axes[3, -1].lines:
        axes[3, -1].legend(ncols=2, handlelength=1, columnspacing=1)
    figure.align_ylabels()
    return figure
