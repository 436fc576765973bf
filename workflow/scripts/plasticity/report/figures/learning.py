"""Learning curves within early and late tasks, and those of the baseline."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.models import BASELINE
from plasticity.report.panels import curve, finish, grid, series, stage_means, titles
from plasticity.report.style import Style, as_line_options
from plasticity.training.outcomes import stages

CATEGORY = "1 Loss of plasticity"
TITLE = "learning curves within early and late tasks"
TABLES = ()
SETTINGS_PER_PAGE = 8


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw error and loss on each batch before the step on it, a column per setting.

    Late curves are means over the last eighth of the tasks, early ones over as many tasks, from
    the second one on.
    """
    rows = {"error_curve": "error on the\nnext batch", "loss_curve": "loss on the\nnext batch"}
    figure, panels = grid(rows, titles(datasets), style, height=1.3, xlabel="step of the task")
    for (name, setting), axis in panels.items():
        _draw_stages(axis, datasets[setting], name, style)
    return finish(figure, panels, style)


def _draw_stages(axis: Axes, data: xr.Dataset, name: str, style: Style) -> None:
    """Draw the curves of early and late tasks, and the baseline's curve of all tasks."""
    for stage in stages(data.sizes["task"]):
        if stage == "all":
            arm, label = BASELINE, "fresh network per task, all tasks"
            line_options = style.of_arm(BASELINE)
        else:
            arm, label = "none", f"{stage} tasks"
            line_options = as_line_options(style.stages[stage])
        values = stage_means(series(data, name, arm)).sel(stage=stage)
        curve(axis, values, style, label, along="step", **line_options)
