"""Curvature rank of each layer over tasks."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.quantities import describe, operator_name
from plasticity.report.panels import (
    COMBINED_BLOCKS,
    curve,
    finish,
    grid,
    label_ends,
    main_operator,
    primary_measure,
    series,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "rank layer by layer"
TABLES = ()
SETTINGS_PER_PAGE = 16
MOST_LABELS = 8  # of deeper networks, every second or third … layer is labelled
HEIGHT = 1.7
LIGHTEST = 0.75  # of the colour map: lighter labels are hard to read on white


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting for the arm without an intervention, on the next task's data.

    Layers are drawn from dark (input) to light (output).
    """
    operator = main_operator(datasets)
    measure = primary_measure(datasets)
    rows = {measure: f"{describe(measure).label} of a layer's {operator_name(operator)}"}
    figure, panels = grid(rows, titles(datasets), style, HEIGHT)
    for setting, data in datasets.items():
        _draw_layers(panels[measure, setting], data, measure, style)
        label_ends(panels[measure, setting], HEIGHT)
    return finish(figure, panels, style, legend=False)


def _draw_layers(axis: Axes, data: xr.Dataset, measure: str, style: Style) -> None:
    """Draw one curve per layer, and label at most `MOST_LABELS` of them and the last."""
    layers = [str(block) for block in data.block.values if block not in COMBINED_BLOCKS]
    colours = mpl.colormaps[style.sequence](np.linspace(0, LIGHTEST, len(layers)))
    spacing = -(-len(layers) // MOST_LABELS)
    for index, (layer, colour) in enumerate(zip(layers, colours, strict=True)):
        is_labelled = index % spacing == 0 or index == len(layers) - 1
        label = layer.replace("_", " ") if is_labelled else "_"
        ranks = series(data, measure, "none", block=layer)
        curve(axis, ranks, style, label, color=colour)
