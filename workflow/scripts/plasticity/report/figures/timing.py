"""When each measure changes in each run, and by how many tasks it is ahead of the gap."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.config.quantities import EXPLANATIONS, RANKS, describe, one_line_name
from plasticity.report.panels import (
    SMALL_FONT,
    finish,
    grid,
    main_operator,
    series,
    titles,
)
from plasticity.report.style import Style
from plasticity.statistics.lead_lag import change_points
from plasticity.statistics.meta_analysis import EXPLAINED_ARM

CATEGORY = "3 Associations"
TITLE = "which changes first"
TABLES = ("lead_lag",)
SETTINGS_PER_PAGE = 8
OUTCOME = "final_error_gap"
EVENTS = "events"
LEADS = "leads"
LANES = 0.7  # share of a line that the dots of its runs fill
LINE_HEIGHT = 0.14  # inches
GAP_MARKER = "s"
MEASURE_MARKER = "o"


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Draw two panels per setting, with a line per explanation and a dot per run.

    All are of the arm without an intervention. The upper panel has the task at which the gap and
    each explanation change, and the lower one the difference to the gap.
    """
    table = _select(tables["lead_lag"], list(datasets))
    known = table[table["estimate"].notna()]
    measures = [name for name in _explanations(datasets) if name in set(known["measure"])]
    rows = {EVENTS: "", LEADS: ""}
    own_xlabels = {EVENTS: "task of the change", LEADS: "tasks ahead of the gap"}
    height = 0.35 + LINE_HEIGHT * (max(len(measures), 3) + 1)
    figure, panels = grid(rows, titles(datasets), style, height, own_xlabels=own_xlabels)
    for position, (setting, data) in enumerate(datasets.items()):
        of_setting = table[table["setting"] == setting].set_index("measure")
        of_known = known[known["setting"] == setting].set_index("measure")
        drawn = [name for name in measures if name in of_known.index]
        is_leftmost = position % style.panels == 0
        if drawn:
            _draw_events(panels[EVENTS, setting], data, drawn, measures, style)
            _draw_leads(panels[LEADS, setting], data, of_known, drawn, measures, style)
        for row, names in ((EVENTS, [OUTCOME, *measures]), (LEADS, measures)):
            axis = panels[row, setting]
            _name_lines(axis, names, is_leftmost)
            if drawn:
                notes = of_setting["note"].drop(drawn)
                _write_notes(axis, notes[notes.index.isin(names)], names, style)
    return finish(figure, panels, style)


def _explanations(datasets: Mapping[str, xr.Dataset]) -> list[str]:
    """List the ranks of curvature, and the earlier explanations of which a direction is claimed."""
    operator = main_operator(datasets)
    earlier = [name for name in EXPLANATIONS if describe(name).claimed_sign != 0]
    return [*(f"{operator}_{rank}" for rank in RANKS), *earlier]


def _select(table: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Select the differences of change points."""
    return table[
        (table["arm"] == EXPLAINED_ARM)
        & (table["outcome"] == OUTCOME)
        & (table["question"] == "change_point")
        & table["setting"].isin(settings)
    ]


def event_times(data: xr.Dataset, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Find the task at which a measure and the gap change, at the tasks where it is measured.

    Args:
        data: dataset of a setting.
        measure: its name.

    Returns:
        Tasks of the measure's and of the gap's change, each of shape ``(seed,)``. Runs that
        diverged or have a gap in their data are left out.
    """
    values = series(data, measure, EXPLAINED_ARM).dropna("task", how="all")
    gaps = series(data, OUTCOME, EXPLAINED_ARM)
    is_complete = (values.notnull().all("task") & gaps.notnull().all("task")).values
    tasks = values.task.values
    x = values.values[is_complete]
    y = gaps.sel(task=tasks).values[is_complete]
    return tasks[change_points(x)], tasks[change_points(y)]


def _draw_events(
    axis: Axes, data: xr.Dataset, drawn: Sequence[str], measures: Sequence[str], style: Style
) -> None:
    """Draw the task at which each run changes: the gap in the first line, then each measure."""
    of_gap = event_times(data, drawn[0])[1]
    _draw_runs(axis, of_gap, 0, GAP_MARKER, style.warning, "gap in a run")
    for measure in drawn:
        of_measure, _ = event_times(data, measure)
        line = 1 + measures.index(measure)
        _draw_runs(axis, of_measure, line, MEASURE_MARKER, style.quiet, "measure in a run")
    axis.set_xlim(-0.5, data.sizes["task"] - 0.5)


def _draw_leads(
    axis: Axes,
    data: xr.Dataset,
    table: pd.DataFrame,
    drawn: Sequence[str],
    measures: Sequence[str],
    style: Style,
) -> None:
    """Draw the difference of each run, and the mean of the table with its interval."""
    axis.axvline(0, color=style.warning, linewidth=0.8)
    for measure in drawn:
        of_measure, of_gap = event_times(data, measure)
        line = measures.index(measure)
        leads = of_gap - of_measure
        _draw_runs(axis, leads, line, MEASURE_MARKER, style.quiet, "measure in a run")
        row = table.loc[measure]
        axis.plot([row["low"], row["high"]], [line, line], color="black", linewidth=0.9)
        label = "mean over runs, 95 % interval"
        axis.plot(row["estimate"], line, "D", color="black", label=label)
    largest = max(abs(limit) for limit in axis.get_xlim())
    axis.set_xlim(-largest, largest)


def _draw_runs(
    axis: Axes, times: np.ndarray, line: int, marker: str, colour: str, label: str
) -> None:
    """Draw a dot per run, each a little below the one before, so that equal times are seen."""
    offsets = LANES * ((np.arange(len(times)) + 0.5) / len(times) - 0.5)
    axis.plot(times, line + offsets, marker, color=colour, markersize=1.8, label=label)


def _write_notes(axis: Axes, notes: pd.Series, names: Sequence[str], style: Style) -> None:
    """Write into a line why it has no change, for example because the measure is constant."""
    for measure, note in notes.items():
        axis.text(
            0.5,
            names.index(str(measure)),
            str(note),
            transform=axis.get_yaxis_transform(),
            ha="center",
            va="center",
            fontsize=SMALL_FONT,
            color=style.quiet,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
        )


def _name_lines(axis: Axes, names: Sequence[str], is_leftmost: bool) -> None:
    """Name the lines of a panel; the first one is at the top."""
    axis.set_yticks(range(len(names)), [one_line_name(name) for name in names])
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axis.tick_params(labelleft=is_leftmost)
