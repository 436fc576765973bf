"""Late error against each hyperparameter of the methods."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.models import method_of
from plasticity.report.panels import REFERENCES, finish, grid, titles
from plasticity.report.style import Style

CATEGORY = "5 Methods"
TITLE = "sensitivity to hyperparameters"
TABLES = ("outcomes", "tuning")
COLUMNS = ["setting", "method", "hyper", "value", "others", "mean", "low", "high"]
# With two seeds, Student's t reaches 13 standard errors, and lines would look flat below their bars
FEWEST_SEEDS_FOR_BARS = 3
MARKERS = "osD^v"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting and hyperparameter that has several values.

    Errors are those of the tuning seeds for methods that are tuned.
    """
    points = swept(tables)
    points = points[points["setting"].isin(datasets)]
    pairs = dict.fromkeys(zip(points["setting"], points["hyper"], strict=True))
    columns = {f"{setting} {hyper}": titles(datasets)[setting] for setting, hyper in pairs}
    row = "final_error"
    figure, panels = grid(
        {row: "final error, late"},
        columns or {"": "no hyperparameter has two values"},
        style,
        height=1.8,
        own_xlabels={row: ""},
    )
    for (setting, hyper), of_panel in points.groupby(["setting", "hyper"], sort=False):
        axis = panels[row, f"{setting} {hyper}"]
        _draw_references(axis, tables["outcomes"], str(setting), style)
        _draw_methods(axis, of_panel, style)
        axis.set_xlabel(str(hyper).replace("_", " "))
    return finish(figure, panels, style)


def swept(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Collect the late final errors of arms that differ in a hyperparameter.

    Returns:
        One row per setting, method, hyperparameter with several values (``hyper``), and its
        ``value``; ``others`` are the other hyperparameters; ``mean``, and ``low`` and ``high``,
        which are NaN with fewer than `FEWEST_SEEDS_FOR_BARS` seeds.
    """
    rows = []
    for name in ("outcomes", "tuning"):
        table = tables[name]
        is_wanted = (table["outcome"] == "final_error") & (table["stage"] == "late")
        for _, row in table[is_wanted].iterrows():
            if name == "tuning":
                options = json.loads(row["hyperparameters"])
            else:
                options = _options(row["arm"])
            rows += _points(row, options)
    points = pd.DataFrame(rows, columns=COLUMNS)
    if points.empty:
        return points
    by_hyperparameter = points.groupby(["setting", "method", "hyper"], sort=False)
    return points[by_hyperparameter["value"].transform("nunique") > 1]


def _points(row: pd.Series, options: Mapping[str, object]) -> list[list[object]]:
    """Make one point per hyperparameter of an arm.

    Args:
        row: of the table of outcomes or of tuning.
        options: the arm's hyperparameters.
    """
    has_bar = row["seeds"] >= FEWEST_SEEDS_FOR_BARS
    bounds = [row["low"], row["high"]] if has_bar else [np.nan, np.nan]
    points = []
    for hyper, value in options.items():
        others = ", ".join(f"{name} {other}" for name, other in options.items() if name != hyper)
        method = method_of(str(row["arm"]))
        points.append([row["setting"], method, hyper, value, others, row["mean"], *bounds])
    return points


def _options(arm: str) -> dict[str, object]:
    """Read the hyperparameters in an arm's name."""
    options: dict[str, object] = {}
    for option in arm.partition("(")[2].rstrip(")").split(", "):
        if option:
            name, _, value = option.partition("=")
            options[name] = _number_or_text(value)
    return options


def _number_or_text(value: str) -> object:
    """Convert a value to a number if possible."""
    try:
        return float(value)
    except ValueError:
        return value


def _draw_references(axis: Axes, outcomes: pd.DataFrame, setting: str, style: Style) -> None:
    """Draw the errors of no intervention and of the baseline as levels, with their intervals."""
    for arm, label in REFERENCES.items():
        line_options = style.of_arm(arm)
        is_wanted = (
            (outcomes["setting"] == setting)
            & (outcomes["arm"] == arm)
            & (outcomes["outcome"] == "final_error")
            & (outcomes["stage"] == "late")
            & outcomes["mean"].notna()
        )
        for _, row in outcomes[is_wanted].iterrows():
            axis.axhline(row["mean"], label=label, linewidth=0.9, **line_options)
            if np.isfinite(row["low"]):
                axis.axhspan(
                    row["low"],
                    row["high"],
                    color=line_options["color"],
                    alpha=style.band / 2,
                    linewidth=0,
                )


def _draw_methods(axis: Axes, points: pd.DataFrame, style: Style) -> None:
    """Draw a line per method and choice of its other hyperparameters."""
    values = sorted(set(points["value"]), key=lambda value: (isinstance(value, str), value))
    is_numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    line_counts = dict.fromkeys(points["method"], 0)
    for (method, others), line in points.groupby(["method", "others"], sort=False):
        marker = MARKERS[line_counts[method] % len(MARKERS)]
        line_counts[method] += 1
        line = line.sort_values("value", key=lambda column: column.map(values.index))
        x = line["value"].astype(float) if is_numeric else line["value"].map(values.index)
        bars = np.abs(line[["low", "high"]].to_numpy(float).T - line["mean"].to_numpy(float))
        axis.errorbar(
            x,
            line["mean"],
            bars,
            label=f"{method} ({others})" if others else str(method),
            marker=marker,
            elinewidth=0.7,
            capsize=1.5,
            **style.of_arm(str(method)),
        )
    if not is_numeric:
        axis.set_xticks(range(len(values)), [str(value) for value in values])
    elif min(values) > 0 and max(values) >= 10 * min(values):
        axis.set_xscale("log")
