"""Share of the next task's gradient in the top eigenvectors of curvature."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.models import BASELINE
from plasticity.config.quantities import operator_name
from plasticity.report.panels import (
    curve,
    finish,
    grid,
    measured_operators,
    series,
    titles,
)
from plasticity.report.style import Style, as_line_options

CATEGORY = "2 Curvature"
TITLE = "gradient overlap"
TABLES = ()
SETTINGS_PER_PAGE = 4
EVALUATION_POINTS = {
    "next": "eigenvectors on the next task",
    "previous": "eigenvectors on the previous task",
    "fresh": "fresh network",
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per operator and a column per setting, with a line per evaluation point.

    All are of the arm without an intervention and of the whole network.
    """
    operators = measured_operators(datasets) or ["fisher"]
    rows = {
        f"{operator}_gradient_overlap": f"{operator_name(operator)}\nshare of gradient"
        for operator in operators
    }
    figure, panels = grid(rows, titles(datasets), style, height=1.15)
    for (measure, setting), axis in panels.items():
        _draw_evaluation_points(axis, datasets[setting], measure, style)
        if axis.has_data():
            axis.set_ylim(-0.02, 1.02)
    return finish(figure, panels, style)


def _draw_evaluation_points(axis: Axes, data: xr.Dataset, measure: str, style: Style) -> None:
    """Draw a line per evaluation point.

    Without the evaluation point `fresh`, the baseline on the next task's data replaces it: at the
    start of each task, that is a fresh network, too.
    """
    for evaluation_point, label in EVALUATION_POINTS.items():
        if evaluation_point == "fresh" and "fresh" not in data.evaluation_point:
            values = series(data, measure, BASELINE, block="all")
        else:
            values = series(data, measure, "none", evaluation_point, block="all")
        curve(
            axis, values, style, label, **as_line_options(style.evaluation_points[evaluation_point])
        )
