"""What regularizers keep: error, curvature rank and weight norm over tasks, a column per method, its arms against none."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import figures
from plasticity.settings import YARDSTICK

ROWS = ("final_error", "fisher_effective_rank", "weight_norm")
REFERENCES = ("none", YARDSTICK)


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """For each setting a row per quantity; a setting without a method shows the references alone."""
    methods = {
        name: list(dict.fromkeys(figures.method_of(arm) for arm in data.arm.values if arm not in REFERENCES))
        for name, data in datasets.items()
    }
    shown = {name: datasets[name] for name in datasets if methods[name]} or dict(datasets)
    columns = max(1, *(len(methods[name]) for name in shown))
    figure, axes = figures.panels(len(ROWS) * len(shown), columns, height=1.2)
    for (setting, data), rows in zip(shown.items(), np.split(axes, len(shown)), strict=True):
        for method, column in zip(methods[setting] or REFERENCES[:1], rows.T, strict=False):
            column[0].set_title(f"{figures.title(setting)}: {method}")
            for axis, name in zip(column, ROWS, strict=True):
                for reference in REFERENCES:
                    figures.curve(axis, figures.series(data, name, reference), reference, reference)
                for rank, arm in enumerate(arm for arm in data.arm.values if figures.method_of(arm) == method and arm not in REFERENCES):
                    figures.curve(axis, figures.series(data, name, arm), arm, method, linewidth=0.9 + 0.9 * min(rank, 3))
        for column in rows.T[len(methods[setting]) or 1 :]:
            for axis in column:
                axis.set_visible(False)
        for axis, name in zip(rows[:, 0], ROWS, strict=True):
            axis.set_ylabel(figures.LABELS[name])
    for axis in axes[-1]:
        axis.set_xlabel("task")
    figures.legend(figure, axes)
    figure.align_ylabels()
    return figure
