"""Final error over tasks, and below it each earlier explanation of the loss of plasticity."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config.quantities import EXPLANATIONS, describe
from plasticity.report.panels import add_remark, draw_over_tasks, finish, grid, titles
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import EXPLAINED_ARM

CATEGORY = "1 Loss of plasticity"
TITLE = "earlier explanations, and where they fail"
TABLES = ("counterexamples",)
SETTINGS_PER_PAGE = 4


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a row per explanation and a column per setting, with the verdict of the table."""
    rows = {name: describe(name).label for name in ("final_error", *EXPLANATIONS)}
    figure, panels = grid(rows, titles(datasets), style, height=0.85)
    draw_over_tasks(panels, datasets, rows, style)
    table = tables["counterexamples"]
    is_drawn = (
        (table["arm"] == EXPLAINED_ARM)
        & table["measure"].isin(EXPLANATIONS)
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
