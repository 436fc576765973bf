"""What comes first: by how many tasks each measure leads the loss of plasticity, and which helps to predict which; a column per setting."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.report.panels import finish, grid, titles, words
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import ARM, SURE, claim

CATEGORY = "3 What goes with it"
TITLE = "lead and lag"
TABLES = ("lead_lag",)
OUTCOME = "final_error_gap"
QUESTIONS = {
    "measure_first": (">", "the measure helps to predict the gap"),
    "outcome_first": ("<", "the gap helps to predict the measure"),
}
SMALLEST = 1e-4  # p that is drawn as such


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention, each measure of which a direction is claimed."""
    table = tables["lead_lag"]
    chosen = (
        (table["arm"] == ARM)
        & (table["outcome"] == OUTCOME)
        & table["estimate"].notna()
        & table["setting"].isin(datasets)
    )
    table = table[chosen & table["measure"].map(claim).astype(bool)]
    measures = list(dict.fromkeys(table["measure"]))
    rows = {"lead": "", "p": ""}
    apart = {"lead": "tasks by which the\nmeasure is ahead", "p": "adjusted p"}
    figure, panels = grid(
        rows, titles(datasets), style, height=0.5 + 0.13 * len(measures), apart=apart
    )
    for place, setting in enumerate(datasets):
        here = table[table["setting"] == setting]
        _lead(panels["lead", setting], here, measures, style)
        _predicts(panels["p", setting], here, measures, style)
        for row in rows:
            panels[row, setting].set_yticks(
                range(len(measures)), [words(name) for name in measures]
            )
            panels[row, setting].set_ylim(max(len(measures), 1) - 0.5, -0.5)
            panels[row, setting].tick_params(labelleft=place % style.panels == 0)
    return finish(figure, panels, style)


def _lead(axis: Axes, table: pd.DataFrame, measures: list[str], style: Style) -> None:
    """Change points, mean over seeds with quartiles; and the lag of the largest cross-correlation, filled where no null has as large."""
    found = table[table["question"] == "change_point"]
    if len(found):
        places = [measures.index(name) for name in found["measure"]]
        axis.hlines(
            places,
            found["lower_quartile"],
            found["upper_quartile"],
            color=style.quiet,
            linewidth=2.5,
            alpha=0.4,
        )
        axis.plot(
            found["estimate"],
            places,
            "o",
            color="black",
            label="change point, with quartiles over seeds",
        )
    found = table[table["question"] == "cross_correlation"]
    if len(found):
        sure = found["p_adjusted"] <= SURE
        for rows, inside, label in (
            (found[~sure], "none", "largest cross-correlation"),
            (found[sure], style.warning, f"… p ≤ {SURE}"),
        ):
            places = [measures.index(name) for name in rows["measure"]]
            axis.plot(
                rows["lag"], places, "D", color=style.warning, markerfacecolor=inside, label=label
            )
    if len(table):
        axis.axvline(0, color="black", linewidth=0.6)


def _predicts(axis: Axes, table: pd.DataFrame, measures: list[str], style: Style) -> None:
    """Granger's test in both directions."""
    for question, (marker, label) in QUESTIONS.items():
        found = table[(table["question"] == question) & table["p_adjusted"].notna()]
        if len(found):
            places = [measures.index(name) for name in found["measure"]]
            p = np.maximum(found["p_adjusted"], SMALLEST)
            axis.plot(
                p, places, marker, color="black" if marker == ">" else style.quiet, label=label
            )
            axis.set_xscale("log")
            axis.set_xlim(min(SURE / 2, table["p_adjusted"].clip(SMALLEST).min() / 2), 1.5)
            axis.axvline(SURE, color=style.warning, linewidth=0.7, linestyle="--")
