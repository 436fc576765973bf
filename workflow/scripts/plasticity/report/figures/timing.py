"""How many tasks each measure leads the loss of plasticity by, and which predicts which."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config import quantities
from plasticity.config.quantities import one_line_name
from plasticity.report.panels import finish, grid, titles
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.resampling import SIGNIFICANCE_LEVEL

CATEGORY = "3 Associations"
TITLE = "lead and lag"
TABLES = ("lead_lag",)
SETTINGS_PER_PAGE = 4
OUTCOME = "final_error_gap"
GRANGER_TESTS = {
    "measure_first": (">", "the measure helps to predict the gap"),
    "outcome_first": ("<", "the gap helps to predict the measure"),
}
SMALLEST_P = 1e-4  # smaller ones are drawn there


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a column per setting and a line per measure of which a direction is claimed.

    All are of the arm without an intervention.
    """
    table = tables["lead_lag"]
    is_drawn = (
        (table["arm"] == EXPLAINED_ARM)
        & (table["outcome"] == OUTCOME)
        & table["estimate"].notna()
        & table["setting"].isin(datasets)
    )
    has_claim = table["measure"].map(lambda name: quantities.describe(name).claimed_sign != 0)
    table = table[is_drawn & has_claim.astype(bool)]
    measures = list(dict.fromkeys(table["measure"]))
    rows = {"lead": "", "p": ""}
    own_xlabels = {"lead": "tasks by which the\nmeasure is ahead", "p": "adjusted p"}
    height = 0.5 + 0.13 * len(measures)
    figure, panels = grid(rows, titles(datasets), style, height, own_xlabels=own_xlabels)
    for position, setting in enumerate(datasets):
        of_setting = table[table["setting"] == setting]
        _draw_leads(panels["lead", setting], of_setting, measures, style)
        _draw_granger_tests(panels["p", setting], of_setting, measures, style)
        for row in rows:
            axis = panels[row, setting]
            axis.set_yticks(range(len(measures)), [one_line_name(name) for name in measures])
            axis.set_ylim(max(len(measures), 1) - 0.5, -0.5)
            axis.tick_params(labelleft=position % style.panels == 0)
    return finish(figure, panels, style)


def _draw_leads(axis: Axes, table: pd.DataFrame, measures: Sequence[str], style: Style) -> None:
    """Draw change points, and the lags of the largest cross-correlations.

    Change points are means over seeds with quartiles. A lag is filled where p is at most `SURE`.
    """
    change_points = table[table["question"] == "change_point"]
    if len(change_points):
        y = _positions(change_points, measures)
        low, high = change_points["lower_quartile"], change_points["upper_quartile"]
        axis.hlines(y, low, high, color=style.quiet, linewidth=2.5, alpha=0.4)
        label = "change point, with quartiles over seeds"
        axis.plot(change_points["estimate"], y, "o", color="black", label=label)

    correlations = table[table["question"] == "cross_correlation"]
    if len(correlations):
        is_sure = correlations["p_adjusted"] <= SIGNIFICANCE_LEVEL
        groups = [
            (correlations[~is_sure], "none", "largest cross-correlation"),
            (correlations[is_sure], style.warning, f"… p ≤ {SIGNIFICANCE_LEVEL}"),
        ]
        for rows, fill, label in groups:
            axis.plot(
                rows["lag"],
                _positions(rows, measures),
                "D",
                color=style.warning,
                markerfacecolor=fill,
                label=label,
            )
    if len(table):
        axis.axvline(0, color="black", linewidth=0.6)


def _draw_granger_tests(
    axis: Axes, table: pd.DataFrame, measures: Sequence[str], style: Style
) -> None:
    """Draw adjusted p-values of Granger's test in both directions."""
    for question, (marker, label) in GRANGER_TESTS.items():
        rows = table[(table["question"] == question) & table["p_adjusted"].notna()]
        if rows.empty:
            continue
        p = np.maximum(rows["p_adjusted"], SMALLEST_P)
        colour = "black" if marker == ">" else style.quiet
        axis.plot(p, _positions(rows, measures), marker, color=colour, label=label)
        axis.set_xscale("log")
        axis.set_xlim(
            min(SIGNIFICANCE_LEVEL / 2, table["p_adjusted"].clip(SMALLEST_P).min() / 2), 1.5
        )
        axis.axvline(SIGNIFICANCE_LEVEL, color=style.warning, linewidth=0.7, linestyle="--")


def _positions(table: pd.DataFrame, measures: Sequence[str]) -> list[int]:
    """Return the line of each row's measure in a panel."""
    return [measures.index(name) for name in table["measure"]]
