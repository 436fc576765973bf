"""Learning curves within tasks: early ones beside late ones, and beside a fresh network's, a column per setting."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.models import BASELINE
from plasticity.report.panels import curve, finish, grid, series, titles
from plasticity.report.style import Style, look
from plasticity.training.outcomes import stages

CATEGORY = "1 Loss of plasticity"
TITLE = "learning curves within early and late tasks"
TABLES = ()


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Error and loss on each batch before the step on it, means over the first and over the last eighth of the tasks."""
    rows = {"error_curve": "error on the\nnext batch", "loss_curve": "loss on the\nnext batch"}
    figure, panels = grid(rows, titles(datasets), style, height=1.3, xlabel="step of the task")
    for (name, setting), axis in panels.items():
        data = datasets[setting]
        for stage, tasks in stages(data.sizes["task"]).items():
            arm = BASELINE if stage == "all" else "none"
            values = series(data, name, arm).isel(task=tasks)
            label = "fresh network, all tasks" if stage == "all" else f"{stage} tasks"
            chosen = style.of_arm(arm) if stage == "all" else look(style.stages[stage])
            curve(axis, values.mean("task", skipna=False), style, label, along="step", **chosen)
    return finish(figure, panels, style)
