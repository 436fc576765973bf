"""The share of the coming task's gradient in the top directions of curvature, an operator a row and a column per setting."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.models import BASELINE
from plasticity.report.panels import OPERATORS, curve, finish, grid, operators_of, series, titles
from plasticity.report.style import Style, look

CATEGORY = "2 Curvature"
TITLE = "gradient overlap"
TABLES = ()
EVALUATION_POINTS = {
    "next": "directions of the coming task",
    "previous": "directions of the ended task",
    "fresh": "a network drawn anew, coming task",
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention, all layers together: on the coming task's data, on the ended task's, and of a network drawn anew."""
    operators = operators_of(datasets) or ["fisher"]
    rows = {
        f"{operator}_gradient_overlap": f"{OPERATORS[operator]}:\nshare of gradient"
        for operator in operators
    }
    figure, panels = grid(rows, titles(datasets), style, height=1.15)
    for (name, setting), axis in panels.items():
        for evaluation_point, label in EVALUATION_POINTS.items():
            values = series(datasets[setting], name, "none", evaluation_point, block="all")
            curve(axis, values, style, label, **look(style.evaluation_points[evaluation_point]))
        if "fresh" not in datasets[setting].evaluation_point:
            values = series(datasets[setting], name, BASELINE, block="all")
            curve(
                axis,
                values,
                style,
                EVALUATION_POINTS["fresh"],
                **look(style.evaluation_points["fresh"]),
            )
        if axis.has_data():
            axis.set_ylim(-0.02, 1.02)
    return finish(figure, panels, style)
