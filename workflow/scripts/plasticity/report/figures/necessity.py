"""Is curvature necessary for plasticity, and sufficient? Changes of both by each treatment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from plasticity.config.quantities import one_line_name
from plasticity.report.labels import Label, label_points
from plasticity.report.panels import (
    SMALL_FONT,
    add_legend,
    draw_sentence,
    finish,
    grid,
    primary_measure,
    short,
    titles,
)
from plasticity.report.style import Style, lay_out
from plasticity.report.treated import (
    at_telling_task,
    legend_of_controls,
    legend_of_families,
    marker_of,
    of_quantity,
    of_treatments,
    point_look,
    why_nothing,
)
from plasticity.statistics.treatment_effects import NOT_NECESSARY, NOT_SUFFICIENT

CATEGORY = "4 Interventions"
TITLE = "necessary and sufficient"
TABLES = ("treatments", "intervention_counterexamples")
SETTINGS_PER_PAGE = 6
OUTCOME = "final_error"
COPY = ["setting", "task", "treatment"]  # columns that name a copy
# by the signs of the change of the rank (right is more) and of the error (up is more)
QUADRANTS = {
    (-1, -1): "plasticity\nwithout curvature",
    (1, 1): "curvature\nwithout plasticity",
    (1, -1): "both restored",
    (-1, 1): "both lost",
}
PANELS = 2  # in a row: names need room
HEIGHT = 2.5
RING_SIZE = 5.5  # points
ROOM_FOR_NAMES = 1.2  # the names of quadrants lie beyond the outermost points
LEAST_SHARE = 0.3  # of the panel's width and height on each side of zero


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw a panel per setting with a point per treatment, and name the counter-examples.

    Changes are to the copy without a treatment. All copies are of the arm without an intervention.
    """
    measure = primary_measure(datasets)
    table = at_telling_task(of_treatments(tables["treatments"], datasets))
    points = _points(table, measure)
    if points.empty:
        return draw_sentence(why_nothing(tables["treatments"]), style)
    figure, panels = grid(
        {OUTCOME: "change of the final error"},
        titles(datasets),
        replace(style, panels=min(PANELS, style.panels)),
        HEIGHT,
        own_xlabels={OUTCOME: f"change of the {one_line_name(measure)}"},
    )
    counterexamples = _counterexamples(tables["intervention_counterexamples"], points, measure)
    for setting in datasets:
        _draw_points(panels[OUTCOME, setting], points[points["setting"] == setting], style)
    drawn = [axis for axis in panels.values() if axis.has_data()]
    _make_room_around_zero(drawn)
    families = set(points["treatment_family"])
    add_legend(figure, legend_of_families(families, style) | legend_of_controls(style))
    finish(figure, panels, style, legend=False)
    texts = {axis: _name_quadrants(axis, style) for axis in drawn}

    lay_out(figure)  # places of names depend on the size of panels
    for (_, setting), axis in panels.items():
        if axis in texts:
            of_setting = points[points["setting"] == setting]
            named = counterexamples[counterexamples["setting"] == setting]
            _ring_points(axis, named)
            places = of_setting[["x", "y"]].to_numpy(float)
            label_points(figure, axis, _labels(named, style), places, texts[axis])
    return figure


def _points(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Join the changes of measure and error, each with the ends of its interval.

    Returns:
        The rows of the measure with the columns ``x``, ``x_low``, ``x_high``, ``y``, ``y_low`` and
        ``y_high``.
    """
    columns = ["change", "change_low", "change_high"]
    x = of_quantity(table, measure).rename(
        columns=dict(zip(columns, ["x", "x_low", "x_high"], strict=True))
    )
    errors = of_quantity(table, OUTCOME).set_index(COPY)[columns]
    y = errors.set_axis(["y", "y_low", "y_high"], axis="columns")
    return x.join(y, on=COPY).dropna(subset=["x", "y"])


def _counterexamples(table: pd.DataFrame, points: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Select the points that the table names, those with the largest change of the error first."""
    is_named = (
        (table["measure"] == measure)
        & (table["outcome"] == OUTCOME)
        & table["kind"].isin([NOT_NECESSARY, NOT_SUFFICIENT])
    )
    named = of_treatments(table[is_named], set(points["setting"]))[COPY]
    found = points.merge(named, on=COPY)
    return found.sort_values("y", key=abs, ascending=False, kind="stable")


def _draw_points(axis: Axes, points: pd.DataFrame, style: Style) -> None:
    """Draw a point per treatment with its intervals as a cross."""
    for _, row in points.iterrows():
        colour = style.families[row["treatment_family"]]
        arms = [
            ([row["x_low"], row["x_high"]], [row["y"], row["y"]]),
            ([row["x"], row["x"]], [row["y_low"], row["y_high"]]),
        ]
        for x, y in arms:
            axis.plot(x, y, color=colour, linewidth=0.6, alpha=0.5)
        marker = marker_of(str(row["treatment"]), str(row["treatment_family"]))
        axis.plot(row["x"], row["y"], **point_look(marker, colour, is_filled=True))


def _make_room_around_zero(axes: Sequence[Axes]) -> None:
    """Draw lines at zero, and widen the limits until each quadrant has room for its name."""
    for axis in axes:
        axis.axhline(0, color="black", linewidth=0.6)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xlim(_with_room(*axis.get_xlim()))
    if axes:
        bottoms, tops = zip(*(axis.get_ylim() for axis in axes), strict=True)
        for axis in axes:
            axis.set_ylim(_with_room(ROOM_FOR_NAMES * min(bottoms), ROOM_FOR_NAMES * max(tops)))


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Widen limits until each side of zero has at least `LEAST_SHARE` of them."""
    ratio = LEAST_SHARE / (1 - LEAST_SHARE)
    below, above = max(0.0, -low), max(0.0, high)
    return -max(below, ratio * above), max(above, ratio * below)


def _name_quadrants(axis: Axes, style: Style) -> list[Text]:
    """Write into the corner of each quadrant what its treatments did."""
    return [
        axis.text(
            0.5 + 0.485 * right,
            0.5 + 0.485 * up,
            name,
            transform=axis.transAxes,
            ha="right" if right > 0 else "left",
            va="top" if up > 0 else "bottom",
            fontsize=SMALL_FONT,
            fontstyle="italic",
            color=style.quiet,
        )
        for (right, up), name in QUADRANTS.items()
    ]


def _ring_points(axis: Axes, named: pd.DataFrame) -> None:
    """Draw a ring around each point that is named."""
    for _, row in named.iterrows():
        axis.plot(
            row["x"],
            row["y"],
            "o",
            color="black",
            markerfacecolor="none",
            markersize=RING_SIZE,
            markeredgewidth=0.7,
        )


def _labels(named: pd.DataFrame, style: Style) -> list[Label]:
    """Make a label for each point that is named."""
    return [
        Label(
            short(str(row["treatment"])),
            row["x"],
            row["y"],
            style.families[row["treatment_family"]],
        )
        for _, row in named.iterrows()
    ]
