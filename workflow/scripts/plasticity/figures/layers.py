"""Curvature rank layer by layer over tasks, a panel per setting."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import drawing
from plasticity.style import Style

CATEGORY = "2 Curvature"
TITLE = "rank layer by layer"
TABLES = ()
NAMED = 8  # layers at most; of more, every second, or third … is named
HEIGHT = 1.7


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style) -> Figure:
    """The arm without an intervention, on the new task's data; layers from the input's (dark) to the output's (light)."""
    operator = drawing.main_operator(datasets)
    name = f"{operator}_effective_rank"
    rows = {name: f"effective rank of a layer's {drawing.OPERATORS[operator]}"}
    figure, panels = drawing.grid(rows, drawing.titles(datasets), style, HEIGHT)
    for setting, data in datasets.items():
        layers = [str(block) for block in data.block.values if block not in drawing.SEVERAL]
        shades = mpl.colormaps[style.sequence](np.linspace(0, 0.85, len(layers)))
        every = -(-len(layers) // NAMED)
        for place, (layer, shade) in enumerate(zip(layers, shades, strict=True)):
            ranks = drawing.series(data, name, "none", block=layer)
            named = place % every == 0 or place == len(layers) - 1
            drawing.curve(panels[name, setting], ranks, style, layer.replace("_", " ") if named else "_", color=shade)
        drawing.label_ends(panels[name, setting], HEIGHT)
    return drawing.finish(figure, panels, style, legend=False)
