"""Loss of plasticity with the curvature beneath: error, gap to a fresh network, rank and scale, a column per setting."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.report.panels import (
    LABELS,
    OPERATORS,
    finish,
    grid,
    main_operator,
    over_tasks,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "2 Curvature"
TITLE = "curvature and error over tasks"
TABLES = ()


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """One operator at each task's start, on the new task's data: the Fisher, or the first that there is."""
    operator = main_operator(datasets)
    of = f"\nof the {OPERATORS[operator]}"
    rows = {name: LABELS[name] for name in ("final_error", "final_error_gap")}
    rows |= {
        f"{operator}_effective_rank": f"effective rank{of}",
        f"{operator}_stable_rank": f"stable rank{of}",
    }
    rows |= {f"{operator}_top_eigenvalue": f"top eigenvalue{of}"}
    figure, panels = grid(rows, titles(datasets), style, height=0.95)
    over_tasks(panels, datasets, rows, style)
    return finish(figure, panels, style)
