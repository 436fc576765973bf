"""Does loss of curvature explain loss of plasticity? The study's answer in one figure."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from plasticity.config.models import BASELINE
from plasticity.config.quantities import MEASURES, RANKS, describe, one_line_name, split_operator
from plasticity.report.panels import (
    REFERENCES,
    main_operator,
    primary_measure,
    series,
    setting_titles,
)
from plasticity.report.style import Style
from plasticity.report.treated import of_explained_arm, why_nothing
from plasticity.statistics.explanations import verdicts
from plasticity.statistics.interventions import TAU
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.treated_arrays import ALL_TASKS
from plasticity.statistics.wording import plural

CATEGORY = "0 Summary"
TITLE = "is loss of plasticity explained by loss of curvature?"
TABLES = ("counterexamples", "arms", "interventions")
OUTCOME = "final_error"
ALL_SETTINGS = "all"
SIDES = {"lost": "Plasticity is lost", "kept": "Plasticity is kept"}
MOVES = {  # the verdicts of settings in which the rank falls
    "lost": "lost, and the measure moves as claimed",
    "kept": "kept, and the measure moves as claimed",
}
POSITIONS = 101  # of tasks at which settings with different numbers of tasks are averaged
# points; this figure is also read at 600 pixels, so its letters are larger than those of others
HEADING_SIZE = 9
TEXT_SIZE = 8
TICK_SIZE = 7.5
# inches
CURVES_HEIGHT = 3.3
LINE_HEIGHT = 0.165
STRIP_MARGIN = 0.95  # title, axis and label of the strip


class Agreement(NamedTuple):
    """How far each explanation agrees with plasticity, in one panel of the strip.

    Attributes:
        heading: the question.
        label: of the x axis.
        limits: of the x axis.
        chance: the value of an explanation that does not agree at all.
        rows: columns ``measure, estimate, low, high``; right is as claimed.
        singles: columns ``measure, estimate``, the same of single settings.
        reason: why there are no rows.
    """

    heading: str
    label: str
    limits: tuple[float, float]
    chance: float
    rows: pd.DataFrame
    singles: pd.DataFrame
    reason: str


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw error and rank where plasticity is lost and where it is kept, and below each agreement.

    All curves are of the arm without an intervention and of the baseline.
    """
    measure = primary_measure(datasets)
    of_settings = _verdicts(tables["counterexamples"], datasets, measure)
    agreements = _agreements(datasets, tables)
    explanations = _sorted_explanations(agreements, datasets)
    strip_height = STRIP_MARGIN + LINE_HEIGHT * max(len(explanations), 3)
    size = (style.widths["page"], CURVES_HEIGHT + strip_height)
    figure = plt.figure(figsize=size)
    grid = figure.add_gridspec(2, 1, height_ratios=[CURVES_HEIGHT, strip_height])
    curves, strip = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_curves(curves, datasets, of_settings, measure, style)
    _draw_strip(strip, agreements, explanations, style)
    return figure


# Error and rank over tasks


def _verdicts(
    counterexamples: pd.DataFrame, datasets: Mapping[str, xr.Dataset], measure: str
) -> dict[str, str]:
    """Return the verdict on each setting: that of the primary measure, or else of any measure."""
    known = verdicts(counterexamples, measure)
    return {name: known.get((name, EXPLAINED_ARM), "not measured") for name in datasets}


def _draw_curves(
    figure: SubFigure,
    datasets: Mapping[str, xr.Dataset],
    of_settings: Mapping[str, str],
    measure: str,
    style: Style,
) -> None:
    """Draw a column for settings that lose plasticity, and one for those that keep it."""
    axes = figure.subplots(2, 2, sharex=True, sharey="row", squeeze=False)
    is_share_of_tasks = len({data.sizes["task"] for data in datasets.values()}) > 1
    for column, (fate, title) in enumerate(SIDES.items()):
        settings = [name for name in datasets if of_settings[name].startswith(f"{fate},")]
        chosen = {name: datasets[name] for name in settings}
        errors, ranks = axes[:, column]
        for arm in REFERENCES:
            error_curves = [_curve(data, OUTCOME, arm) for data in chosen.values()]
            rank_curves = [_relative_curve(data, measure, arm) for data in chosen.values()]
            for axis, lines in ((errors, error_curves), (ranks, rank_curves)):
                _draw_lines(axis, lines, arm, style, is_share_of_tasks)
        moved = sum(of_settings[name] == MOVES[fate] for name in settings)
        _finish_column((errors, ranks), title, len(settings), moved, style)
    axes[0, 0].set_ylabel("error at the\nend of a task", fontsize=TEXT_SIZE)
    axes[1, 0].set_ylabel(
        f"{textwrap.fill(one_line_name(measure), 16)}\n(largest = 1)", fontsize=TEXT_SIZE
    )
    figure.supxlabel("tasks done (%)" if is_share_of_tasks else "task", fontsize=TEXT_SIZE)
    _add_legend(figure, datasets, of_settings, style)


def _curve(data: xr.Dataset, name: str, arm: str) -> pd.Series:
    """Average a quantity over seeds.

    Returns:
        By task, without tasks that were not measured, over the number of tasks of the run.
    """
    values = series(data, name, arm)
    if "task" not in values.dims or not values.size:
        return pd.Series(dtype=float)
    mean = values.mean("seed").dropna("task")
    curve = pd.Series(mean.values, index=mean.task.values, dtype=float)
    curve.attrs["tasks"] = data.sizes["task"]
    return curve


def _relative_curve(data: xr.Dataset, measure: str, arm: str) -> pd.Series:
    """Average a measure over seeds, as a share of its largest mean in the setting."""
    largest = pd.concat([_curve(data, measure, name) for name in REFERENCES]).max()
    curve = _curve(data, measure, arm)
    return curve / largest if largest > 0 else curve.iloc[:0]


def _draw_lines(
    axis: Axes, curves: Sequence[pd.Series], arm: str, style: Style, is_share_of_tasks: bool
) -> None:
    """Draw a thin line per setting and a thick one for their mean; the baseline has only that."""
    curves = [_with_position(curve, is_share_of_tasks) for curve in curves if not curve.empty]
    if not curves:
        return
    look = style.of_arm(arm)
    if arm != BASELINE and len(curves) > 1:
        for curve in curves:
            axis.plot(curve.index, curve, color=style.quiet, linewidth=0.6, alpha=0.6)
    mean = _mean_over_settings(curves)
    axis.plot(mean.index, mean, linewidth=2.2, marker="o" if len(mean) == 1 else None, **look)


def _with_position(curve: pd.Series, is_share_of_tasks: bool) -> pd.Series:
    """Express tasks as percent of the run if settings have different numbers of tasks."""
    if not is_share_of_tasks:
        return curve
    last = max(curve.attrs.get("tasks", curve.index[-1] + 1) - 1, 1)
    return pd.Series(curve.to_numpy(), index=100 * curve.index.to_numpy(float) / last)


def _mean_over_settings(curves: Sequence[pd.Series]) -> pd.Series:
    """Average over settings where all were measured, interpolated between measured tasks."""
    first = max(curve.index[0] for curve in curves)
    last = min(curve.index[-1] for curve in curves)
    places = sorted({place for curve in curves for place in curve.index if first <= place <= last})
    if len(places) > POSITIONS:
        places = list(np.linspace(first, last, POSITIONS))
    values = [np.interp(places, curve.index, curve) for curve in curves]
    return pd.Series(np.mean(values, axis=0), index=places)


def _finish_column(
    axes: Sequence[Axes], title: str, settings: int, moved: int, style: Style
) -> None:
    """Write the title of a column, and one sentence into panels without a curve."""
    count = plural(settings, "setting")
    errors, ranks = axes
    errors.set_title(f"{title}: {count}", fontsize=HEADING_SIZE, fontweight="bold")
    if not settings:
        _write_sentence(errors, "No setting is clearly on this side.", style)
        _write_sentence(ranks, "", style)
        return
    if ranks.lines:
        ranks.set_title(f"The rank clearly falls in {moved} of {count}", fontsize=TEXT_SIZE)
        ranks.set_ylim(0, 1.05)
    else:
        _write_sentence(ranks, "The rank of the curvature was not measured.", style)
    for axis in axes:
        axis.tick_params(labelsize=TICK_SIZE)


def _write_sentence(axis: Axes, sentence: str, style: Style) -> None:
    """Write a sentence in the place of a panel."""
    axis.set_axis_off()
    axis.text(
        0.5,
        0.5,
        textwrap.fill(sentence, 34),
        transform=axis.transAxes,
        ha="center",
        va="center",
        fontsize=TEXT_SIZE,
        color=style.quiet,
    )


def _add_legend(
    figure: SubFigure,
    datasets: Mapping[str, xr.Dataset],
    of_settings: Mapping[str, str],
    style: Style,
) -> None:
    """Explain the lines, and count the settings that are on neither side."""
    handles = [
        Line2D([], [], linewidth=2.2, label=label, **style.of_arm(arm))
        for arm, label in REFERENCES.items()
    ]
    if len(datasets) > 1:
        handles.append(Line2D([], [], color=style.quiet, linewidth=0.6, label="single settings"))
    unclear = [
        name
        for name, verdict in of_settings.items()
        if not verdict.startswith(tuple(f"{fate}," for fate in SIDES))
    ]
    title = None
    if unclear:
        names = setting_titles(datasets)
        listed = f": {'; '.join(names[name] for name in unclear)}" if len(unclear) <= 2 else ""
        noun = "setting is" if len(unclear) == 1 else "settings are"
        title = f"{len(unclear)} {noun} unclear, and not drawn{listed}"
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        fontsize=TEXT_SIZE,
        title=title,
        title_fontsize=TEXT_SIZE,
    )


# The strip


def _agreements(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame]
) -> list[Agreement]:
    """Collect what the two panels of the strip show."""
    arms, (tau, of_settings) = tables["arms"], _taus(tables["interventions"], datasets)
    of_primary = arms[arms["measure"] == primary_measure(datasets)]
    counts = "".join(
        f"\n{_count_arms(row['lost'], row['kept'])}" for _, row in of_primary.iterrows()
    )
    return [
        Agreement(
            "Which explanation tells arms that\nlose plasticity from others?",
            f"AUC{counts}",
            (0, 1),
            0.5,
            arms[arms["estimate"].notna()],
            arms.iloc[:0],
            "No arm clearly loses plasticity, or none clearly keeps it.",
        ),
        Agreement(
            "Which explanation orders copies\nof a checkpoint by their error?",
            "Kendall's τ, its sign turned as claimed\nsmall marks: single settings",
            (-1, 1),
            0.0,
            tau,
            of_settings,
            why_nothing(tables["interventions"]),
        ),
    ]


def _count_arms(lost: int, kept: int) -> str:
    """Count the arms on both sides in words."""
    of_lost = f"{plural(lost, 'arm')} that {'loses' if lost == 1 else 'lose'} plasticity"
    of_kept = f"{kept} that {'keeps' if kept == 1 else 'keep'} it"
    return f"{of_lost}, {of_kept}"


def _taus(
    interventions: pd.DataFrame, settings: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Select τ over all settings, or in the only one, and in each; positive is as claimed."""
    table = of_explained_arm(interventions, [*settings, ALL_SETTINGS])
    table = table[
        (table["statistic"] == TAU)
        & (table["outcome"] == OUTCOME)
        & (table["task"].astype(str) == ALL_TASKS)
        & table["estimate"].notna()
    ]
    signs = table["measure"].map(lambda name: describe(name).claimed_sign).astype(float)
    ends = table[["low", "high"]].mul(signs, axis=0)
    table = table.assign(
        estimate=table["estimate"] * signs, low=ends.min(axis=1), high=ends.max(axis=1)
    )[signs != 0]
    is_of_all = table["setting"] == ALL_SETTINGS
    if len(settings) > 1:
        return table[is_of_all], table[~is_of_all]
    return table[~is_of_all], table.iloc[:0]


def _sorted_explanations(
    agreements: Sequence[Agreement], datasets: Mapping[str, xr.Dataset]
) -> list[str]:
    """List explanations from the best to the worst: by the right panel, then by the left."""
    ranks = [f"{main_operator(datasets)}_{rank}" for rank in RANKS]
    claimed = [name for name in MEASURES if describe(name).claimed_sign]
    estimates = [
        panel.rows.drop_duplicates("measure").set_index("measure")["estimate"]
        for panel in reversed(agreements)
    ]
    known = [name for name in (*ranks, *claimed) if any(name in of.index for of in estimates)]
    return sorted(known, key=lambda name: [-of.get(name, -np.inf) for of in estimates])


def _draw_strip(
    figure: SubFigure, agreements: Sequence[Agreement], explanations: Sequence[str], style: Style
) -> None:
    """Draw a line per explanation and a panel per agreement."""
    axes = figure.subplots(1, 2, sharey=True)
    for axis, agreement in zip(axes, agreements, strict=True):
        axis.set_title(agreement.heading, fontsize=HEADING_SIZE, fontweight="bold")
        rows = agreement.rows[agreement.rows["measure"].isin(explanations)]
        if rows.empty:
            _write_sentence(axis, agreement.reason, style)
            continue
        _draw_agreement(axis, agreement, rows, explanations, style)
    if not explanations:
        return
    first = next(axis for axis in axes if axis.axison)
    first.set_yticks(range(len(explanations)), [one_line_name(name) for name in explanations])
    first.set_ylim(len(explanations) - 0.5, -0.5)
    first.tick_params(axis="y", labelleft=True)
    for name, tick in zip(explanations, first.get_yticklabels(), strict=True):
        if split_operator(name)[0]:
            tick.set_fontweight("bold")


def _draw_agreement(
    axis: Axes,
    agreement: Agreement,
    rows: pd.DataFrame,
    explanations: Sequence[str],
    style: Style,
) -> None:
    """Draw an estimate and its interval per explanation; ranks of curvature have their own look."""
    for _, single in agreement.singles.iterrows():
        if single["measure"] in explanations:
            y = explanations.index(single["measure"])
            axis.plot(single["estimate"], y, "|", color=style.quiet, markersize=5, alpha=0.7)
    for _, row in rows.iterrows():
        y = explanations.index(row["measure"])
        operator = split_operator(row["measure"])[0]
        colour = style.of_operator(operator)["color"] if operator else "black"
        axis.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.4)
        axis.plot(
            row["estimate"],
            y,
            "D" if operator else "o",
            color=colour,
            markerfacecolor=colour if operator else "white",
            markersize=5 if operator else 4.5,
            clip_on=False,
        )
    for y, name in enumerate(explanations):
        if split_operator(name)[0]:
            axis.axhspan(y - 0.5, y + 0.5, color=style.quiet, alpha=0.12, linewidth=0)
    axis.axvline(agreement.chance, color="black", linewidth=0.9)
    low, high = agreement.limits
    margin = 0.02 * (high - low)
    axis.set_xlim(low - margin, high + margin)
    ticks = {low: "opposite", agreement.chance: "no agreement", high: "as claimed"}
    axis.set_xticks(
        list(ticks), [f"{place:g}".replace("-", "−") + f"\n{name}" for place, name in ticks.items()]
    )
    first, _, last = axis.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axis.set_xlabel(agreement.label, fontsize=TEXT_SIZE)
    axis.tick_params(labelsize=TICK_SIZE)
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")
