"""How much the strength of a method matters: the late error against each hyper-parameter, methods that share it beside each other."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.report.panels import REFERENCES, finish, grid, titles
from plasticity.report.style import Style

CATEGORY = "4 Methods"
TITLE = "sensitivity to hyper-parameters"
TABLES = ("outcomes", "tuning")
KEYS = ["setting", "method", "hyper", "value", "others"]
FEWEST = 3  # seeds for a bar: of two, Student's t reaches 13 standard errors, and every line would lie flat beneath its bars
MARKERS = "osD^v"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """A panel per setting and hyper-parameter that has several values, on the tuning seeds where there are such."""
    points = swept(tables)
    points = points[points["setting"].isin(datasets)]
    pairs = dict.fromkeys(zip(points["setting"], points["hyper"], strict=True))
    names = {f"{setting} {hyper}": titles([setting])[setting] for setting, hyper in pairs}
    row = "late_final_error"
    figure, panels = grid(
        {row: "final error, late"},
        names or {"": "no hyper-parameter has two values"},
        style,
        1.8,
        apart={row: ""},
    )
    for (setting, hyper), found in points.groupby(["setting", "hyper"], sort=False):
        axis = panels[row, f"{setting} {hyper}"]
        _references(axis, tables["outcomes"], str(setting), style)
        _lines(axis, found, style)
        axis.set_xlabel(str(hyper).replace("_", " "))
    return finish(figure, panels, style)


def swept(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Late final errors of arms that differ in a hyper-parameter.

    Returns:
        One row per setting, method, hyper-parameter that takes several values there (``hyper``), its ``value``, what the ``others`` are,
        and the ``mean, low, high``, these two NaN of fewer than `FEWEST` seeds.
    """
    found = {
        name: tables[name][
            (tables[name]["outcome"] == "final_error") & (tables[name]["stage"] == "late")
        ]
        for name in ("outcomes", "tuning")
    }
    rows = []
    for name, table in found.items():
        for _, row in table.iterrows():
            options = (
                json.loads(row["hyper_parameters"]) if name == "tuning" else _options(row["arm"])
            )
            method = str(row["arm"]).partition("(")[0]
            for hyper, value in options.items():
                others = ", ".join(
                    f"{key} {other}" for key, other in options.items() if key != hyper
                )
                bar = [row["low"], row["high"]] if row["seeds"] >= FEWEST else [np.nan, np.nan]
                rows.append([row["setting"], method, hyper, value, others, row["mean"], *bar])
    points = pd.DataFrame(rows, columns=[*KEYS, "mean", "low", "high"])
    several = (
        points.groupby(["setting", "method", "hyper"], sort=False)["value"].transform("nunique") > 1
        if len(points)
        else []
    )
    return points[several] if len(points) else points


def _options(arm: str) -> dict[str, object]:
    """The hyper-parameters in an arm's name: numbers as numbers."""
    pairs = [
        option.partition("=") for option in arm.partition("(")[2].rstrip(")").split(", ") if option
    ]
    return {name: _number(value) for name, _, value in pairs}


def _number(value: str) -> object:
    """A number if it is one."""
    try:
        return float(value)
    except ValueError:
        return value


def _references(axis: Axes, outcomes: pd.DataFrame, setting: str, style: Style) -> None:
    """No intervention and a fresh network as levels, with their intervals."""
    for arm, label in REFERENCES.items():
        chosen = (
            (outcomes["setting"] == setting)
            & (outcomes["arm"] == arm)
            & (outcomes["outcome"] == "final_error")
        )
        for _, row in outcomes[
            chosen & (outcomes["stage"] == "late") & outcomes["mean"].notna()
        ].iterrows():
            axis.axhline(row["mean"], label=label, linewidth=0.9, **style.of_arm(arm))
            if np.isfinite(row["low"]):
                axis.axhspan(
                    row["low"],
                    row["high"],
                    color=style.of_arm(arm)["color"],
                    alpha=style.band / 2,
                    linewidth=0,
                )


def _lines(axis: Axes, points: pd.DataFrame, style: Style) -> None:
    """A line per method, and one for each choice of its other hyper-parameters."""
    values = sorted(set(points["value"]), key=lambda value: (isinstance(value, str), value))
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    places = dict.fromkeys(points["method"], 0)
    for (method, others), line in points.groupby(["method", "others"], sort=False):
        marker = MARKERS[places[method] % len(MARKERS)]
        places[method] += 1
        line = line.sort_values("value", key=lambda column: column.map(values.index))
        x = line["value"].astype(float) if numbers else line["value"].map(values.index)
        bars = np.abs(line[["low", "high"]].to_numpy(float).T - line["mean"].to_numpy(float))
        label = f"{method} ({others})" if others else str(method)
        axis.errorbar(
            x,
            line["mean"],
            bars,
            label=label,
            marker=marker,
            elinewidth=0.7,
            capsize=1.5,
            **style.of_arm(str(method)),
        )
    if not numbers:
        axis.set_xticks(range(len(values)), [str(value) for value in values])
    elif min(values) > 0 and max(values) >= 10 * min(values):
        axis.set_xscale("log")
