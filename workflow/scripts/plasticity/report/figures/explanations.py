"""Final error over tasks, below it each earlier explanation of the loss, and curvature last."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.quantities import EXPLANATIONS, describe, operator_name, split_operator
from plasticity.report.panels import (
    add_remark,
    draw_over_tasks,
    finish,
    grid,
    primary_measure,
    titles,
)
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import EXPLAINED_ARM

CATEGORY = "1 Loss of plasticity"
TITLE = "earlier explanations and curvature, and where they fail"
TABLES = ("counterexamples",)
SETTINGS_PER_PAGE = 4


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per explanation and a column per setting, with the verdict of the table.

    The last row is the primary measure of curvature, as in the paper.
    """
    measure = primary_measure(datasets)
    operator, number = split_operator(measure)
    rows = {name: describe(name).label for name in ("final_error", *EXPLANATIONS)}
    rows[measure] = f"{operator_name(operator)}\n{describe(number).label}"
    figure, panels = grid(rows, titles(datasets), style, height=0.85)
    draw_over_tasks(panels, datasets, rows, style)
    table = tables["counterexamples"]
    is_drawn = (
        (table["arm"] == EXPLAINED_ARM)
        & table["measure"].isin(rows)
        & table["setting"].isin(datasets)
    )
    for _, row in table[is_drawn].iterrows():
        axis = panels[row["measure"], row["setting"]]
        verdict = str(row["verdict"])
        if row["counterexample"]:
            add_remark(axis, "✗ counter-example", style, style.warning)
        elif verdict.startswith("lost"):
            add_remark(axis, "✓ as claimed" if verdict.endswith("as claimed") else "unclear", style)
    return finish(figure, panels, style)
