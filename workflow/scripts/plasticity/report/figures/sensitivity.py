"""Late error against each hyperparameter of the methods."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.models import method_of
from plasticity.config.titles import method_title
from plasticity.report.panels import (
    REFERENCES,
    Panels,
    draw_sentence,
    finish,
    grid,
    titles,
)
from plasticity.report.style import Style

CATEGORY = "5 Methods"
TITLE = "sensitivity to hyperparameters"
TABLES = ("outcomes", "tuning")
SETTINGS_PER_PAGE = 4
TALLEST = 1.5  # inches of a panel
MAX_HEIGHT = 9.2  # inches of all bands of panels
BAND_MARGIN = 0.35  # inches of a band for titles and labels
ALIKE = 2  # panels share their y axis if none has a range of errors larger than this times another
COLUMNS = ["setting", "method", "hyper", "value", "others", "mean", "low", "high"]
# With two seeds, Student's t reaches 13 standard errors, and lines would look flat below their bars
FEWEST_SEEDS_FOR_BARS = 3
SMALLEST_RANGE = 0.02  # of errors; narrower panels would enlarge noise
MARKERS = "osD^v"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting and hyperparameter that has several values.

    Errors are those of the tuning seeds for methods that are tuned.
    """
    points = swept(tables)
    points = points[points["setting"].isin(datasets)]
    if points.empty:
        return draw_sentence("No hyperparameter of a method has two values.", style)
    pairs = dict.fromkeys(zip(points["setting"], points["hyper"], strict=True))
    columns = {f"{setting} {hyper}": titles(datasets)[setting] for setting, hyper in pairs}
    band_count = -(-len(columns) // style.panels)
    row = "late_error"  # no share to `grid`, so each panel has its own y axis
    figure, panels = grid(
        {row: "final error, late"},
        columns,
        style,
        min(TALLEST, MAX_HEIGHT / band_count - BAND_MARGIN),
        own_xlabels={row: ""},
    )
    for (setting, hyper), of_panel in points.groupby(["setting", "hyper"], sort=False):
        axis = panels[row, f"{setting} {hyper}"]
        _draw_references(axis, tables["outcomes"], str(setting), style)
        _draw_methods(axis, of_panel, style)
        axis.set_xlabel(str(hyper).replace("_", " "))
    _choose_limits(panels)
    return finish(figure, panels, style)


def _choose_limits(panels: Panels) -> None:
    """Give each panel the limits of its own values, or all the same if their ranges are alike."""
    axes = list(panels.values())
    limits = np.array([_range(axis) for axis in axes])
    widths = limits[:, 1] - limits[:, 0]
    are_alike = np.ptp([limits.min(), limits.max()]) <= ALIKE * widths.min()
    shared = np.array([limits[:, 0].min(), limits[:, 1].max()])
    for axis, own in zip(axes, limits, strict=True):
        low, high = shared if are_alike else own
        margin = 0.05 * max(high - low, SMALLEST_RANGE)
        axis.set_ylim(low - margin, high + margin)
        axis.tick_params(labelleft=True)


def _range(axis: Axes) -> tuple[float, float]:
    """Return the smallest and the largest error of lines and bars in a panel."""
    of_lines = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    of_bars = [
        segment[:, 1]
        for container in axis.containers
        for bars in container[2]
        for segment in bars.get_segments()
        if segment.size  # a missing bar has none
    ]
    values = np.concatenate([*of_lines, *of_bars])
    values = values[np.isfinite(values)]
    return (values.min(), values.max()) if len(values) else (0.0, 1.0)


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


def _label(method: str, others: str) -> str:
    """Name a line by its method and the other hyperparameters."""
    name = method_title(method)
    return f"{name} ({others.replace('_', ' ')})" if others else name


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
            label=_label(str(method), str(others)),
            marker=marker,
            elinewidth=0.7,
            capsize=1.5,
            **style.of_arm(str(method)),
        )
    if not is_numeric:
        axis.set_xticks(range(len(values)), [str(value) for value in values])
    elif min(values) > 0 and max(values) >= 10 * min(values):
        axis.set_xscale("log")
