"""Curvature rank layer by layer over tasks, a panel per setting."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.report.panels import (
    OPERATORS,
    SEVERAL,
    curve,
    finish,
    grid,
    label_ends,
    main_operator,
    series,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "rank layer by layer"
TABLES = ()
NAMED = 8  # layers at most; of more, every second, or third … is named
HEIGHT = 1.7


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention, on the new task's data; layers from the input's (dark) to the output's (light)."""
    operator = main_operator(datasets)
    name = f"{operator}_effective_rank"
    rows = {name: f"effective rank of a layer's {OPERATORS[operator]}"}
    figure, panels = grid(rows, titles(datasets), style, HEIGHT)
    for setting, data in datasets.items():
        layers = [str(block) for block in data.block.values if block not in SEVERAL]
        shades = mpl.colormaps[style.sequence](np.linspace(0, 0.85, len(layers)))
        every = -(-len(layers) // NAMED)
        for place, (layer, shade) in enumerate(zip(layers, shades, strict=True)):
            ranks = series(data, name, "none", block=layer)
            named = place % every == 0 or place == len(layers) - 1
            curve(
                panels[name, setting],
                ranks,
                style,
                layer.replace("_", " ") if named else "_",
                color=shade,
            )
        label_ends(panels[name, setting], HEIGHT)
    return finish(figure, panels, style, legend=False)
