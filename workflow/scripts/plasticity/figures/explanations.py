"""Loss of plasticity with each earlier explanation of it beneath: final error over tasks, a column per setting."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import figures


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Features, units, weights and updates, none of them curvature."""
    rows = ("final_error", "feature_rank", "dormant_fraction", "dead_fraction", "weight_norm", "update_norm")
    figure, axes = figures.panels(len(rows), len(datasets), height=1.05)
    figures.over_tasks(axes, datasets, rows)
    for axis in axes[-1]:
        axis.set_xlabel("task")
    figures.legend(figure, axes)
    figure.align_ylabels()
    return figure
