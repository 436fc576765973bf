"""Error, gap to the baseline, and rank and scale of the curvature over tasks."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.quantities import RANKS, describe, operator_name
from plasticity.report.panels import (
    draw_over_tasks,
    finish,
    grid,
    main_operator,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "curvature and error over tasks"
TABLES = ()
SETTINGS_PER_PAGE = 4


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per quantity and a column per setting.

    Curvature is that of the main operator at each task's start, on the next task's data.
    """
    operator = main_operator(datasets)
    rows = {name: describe(name).label for name in ("final_error", "final_error_gap")}
    for number in (*RANKS, "top_eigenvalue"):
        measure = f"{operator}_{number}"
        rows[measure] = f"{describe(measure).label}\nof the {operator_name(operator)}"
    figure, panels = grid(rows, titles(datasets), style, height=0.95)
    draw_over_tasks(panels, datasets, rows, style)
    return finish(figure, panels, style)
