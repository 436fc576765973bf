"""Learning curves within tasks: early ones beside late ones, and beside a fresh network's, a column per setting."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity import drawing
from plasticity.outcomes import stages
from plasticity.settings import YARDSTICK
from plasticity.style import Style, look

CATEGORY = "1 Loss of plasticity"
TITLE = "learning curves within early and late tasks"
TABLES = ()


def draw(datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style) -> Figure:
    """Error and loss on each batch before the step on it, means over the first and over the last eighth of the tasks."""
    rows = {"error_curve": "error on the\nnext batch", "loss_curve": "loss on the\nnext batch"}
    figure, panels = drawing.grid(rows, drawing.titles(datasets), style, height=1.3, xlabel="step of the task")
    for (name, setting), axis in panels.items():
        data = datasets[setting]
        for stage, tasks in stages(data.sizes["task"]).items():
            arm = YARDSTICK if stage == "all" else "none"
            values = drawing.series(data, name, arm).isel(task=tasks)
            label = "fresh network, all tasks" if stage == "all" else f"{stage} tasks"
            chosen = style.of_arm(arm) if stage == "all" else look(style.stages[stage])
            drawing.curve(axis, values.mean("task", skipna=False), style, label, along="step", **chosen)
    return drawing.finish(figure, panels, style)
