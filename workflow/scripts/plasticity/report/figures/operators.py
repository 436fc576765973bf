"""Curvature operators side by side at each task's start: rank, scale, sign, and how far their ranks agree."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.report.panels import (
    OPERATORS,
    curve,
    finish,
    grid,
    logarithmic,
    operators_of,
    series,
    titles,
)
from plasticity.report.style import Style, look

CATEGORY = "2 Curvature"
TITLE = "agreement of operators"
TABLES = ("redundancy",)
ROWS = {
    "effective_rank": "effective rank",
    "entropy_rank": "entropy rank",
    "top_eigenvalue": "top eigenvalue",
    "negative_fraction": "negative\nfraction",
}
AGREEMENT = "agreement"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """The arm without an intervention, on the coming task's data, all layers together; an operator that was not measured has no line."""
    rows = ROWS | {AGREEMENT: "pairs of ranks"}
    figure, panels = grid(
        rows, titles(datasets), style, height=1.0, apart={AGREEMENT: "Spearman's ρ"}
    )
    table = tables["redundancy"]
    table = table[(table["association"] == "within_run") & table["setting"].isin(datasets)]
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    for setting, data in datasets.items():
        for name in ROWS:
            for operator in operators_of(datasets):
                _curve(panels[name, setting], data, operator, name, style)
            if name != "negative_fraction":
                logarithmic(panels[name, setting])
        _agreement(panels[AGREEMENT, setting], table[table["setting"] == setting], pairs, style)
    for one, other in pairwise(panels[AGREEMENT, setting] for setting in datasets):
        other.sharey(one)
        other.tick_params(labelleft=False)
    return finish(figure, panels, style)


def _curve(axis: Axes, data: xr.Dataset, operator: str, name: str, style: Style) -> None:
    """The mean over seeds with its interval, and bars for the estimates' own errors."""
    values = series(data, f"{operator}_{name}", "none", block="all")
    chosen = look(style.operators[operator])
    curve(axis, values, style, OPERATORS[operator], **chosen)
    errors = (
        series(data, f"{operator}_{name}_standard_error", "none", block="all")
        .mean("seed")
        .dropna("task")
    )
    errors = errors[errors > 0]
    if errors.size:
        means = values.mean("seed").sel(task=errors.task)
        axis.errorbar(
            errors.task,
            means,
            errors,
            fmt="none",
            ecolor=chosen["color"],
            elinewidth=0.7,
            capsize=1.5,
        )


def _agreement(axis: Axes, table: pd.DataFrame, pairs: list[tuple[str, str]], style: Style) -> None:
    """Correlations over tasks between ranks, with their intervals."""
    rows = table[np.isfinite(table["estimate"])] if pairs else table
    if rows.empty:
        return
    places = np.array(
        [
            pairs.index((first, second))
            for first, second in zip(rows["first"], rows["second"], strict=True)
        ]
    )
    axis.hlines(
        places, rows["low"].clip(-1, 1), rows["high"].clip(-1, 1), color=style.quiet, linewidth=0.8
    )
    axis.plot(rows["estimate"], places, "o", color="black")
    names = [" – ".join(_short(name) for name in pair) for pair in pairs]
    axis.set(
        xlim=(-1.05, 1.05),
        ylim=(len(pairs) - 0.5, -0.5),
        yticks=range(len(pairs)),
        yticklabels=names,
    )


def _short(measure: str) -> str:
    """A rank by what it is the rank of."""
    return OPERATORS.get(measure.partition("_")[0], "features")
