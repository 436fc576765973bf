"""Draw the linked plots of the explorer with Bokeh.

All points of runs are in one source that the curves and the scatter share, so a selection in one of
these plots is a selection in the others. The lines of the spectrum are in another source, with one
row per run. `LinkedPlots` keeps the two selections equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.colors
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import BoxSelectTool, ColumnDataSource, HoverTool, TapTool
from bokeh.models.annotations import Span, Title
from bokeh.plotting import figure

from plasticity.config.models import method_of
from plasticity.config.quantities import one_line_name, operator_name
from plasticity.config.titles import arm_title
from plasticity.report import explorer_data
from plasticity.report.explorer_data import Choice, SettingData
from plasticity.report.style import Style
from plasticity.report.treated import FAMILY_LABELS

HEIGHT = 330  # pixels
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashdot"}
ROUND_OFF = 1e-8  # eigenvalues below this share of the largest are below the axis
LIGHTEST = 0.6  # share of white in the colour of the last arm of a method
SELECTED = "#c4006a"  # colour of the lines of selected runs
TASK_COLOUR = "#555555"  # of the marks at the task of the spectrum
RUN_KEYS = ["arm", "seed"]

Dimensions = Literal["width", "both"]  # of a box that selects points
Run = tuple[str, int]  # arm and seed
Point = tuple[str, int, int]  # arm, seed and task


@dataclass(frozen=True)
class Look:
    """How an arm looks: its title, its colour and its line."""

    title: str
    colour: str
    dash: str


def looks_of(arms: Sequence[str], style: Style) -> dict[str, Look]:
    """Give each arm its look. Arms of one method have its colour, lighter from arm to arm.

    Args:
        arms: all arms of a setting, so that a choice of arms changes no colour.
        style: the style of figures.
    """
    of_method: dict[str, list[str]] = {}
    for arm in arms:
        of_method.setdefault(method_of(arm), []).append(arm)
    looks = {}
    for arm in arms:
        siblings = of_method[method_of(arm)]
        white = LIGHTEST * siblings.index(arm) / max(1, len(siblings) - 1)
        line = style.of_arm(arm)
        mixed = (1 - white) * np.array(matplotlib.colors.to_rgb(line["color"])) + white
        colour = matplotlib.colors.to_hex(tuple(mixed))
        looks[arm] = Look(arm_title(arm), colour, DASHES[line["linestyle"]])
    return looks


class LinkedPlots:
    """The plots of one choice; a selection in one of them selects in all.

    Attributes:
        outcome_plot: curves of the outcome over tasks.
        measure_plot: curves of the measure over tasks; None if there is no measure.
        scatter_plot: measure and outcome of every run and task; None without a measure.
        spectrum_plot: eigenvalues at the shown task.
        points: source with a row per run and task.
        lines: source with a row per run: its eigenvalues at the shown task.
        spectra: what the spectrum shows, one row per run and index.
    """

    def __init__(
        self,
        setting: SettingData,
        choice: Choice,
        looks: Mapping[str, Look],
        style: Style,
        on_selection: Callable[[list[Point]], None] = lambda selection: None,
    ) -> None:
        """Draw the plots, without a spectrum yet.

        Args:
            setting: the numbers.
            choice: what to show.
            looks: of each arm.
            style: the style of figures.
            on_selection: is called with the selected points after each selection by hand.
        """
        self._setting = setting
        self._choice = choice
        self._looks = looks
        self._style = style
        self._on_selection = on_selection
        self._is_linking = False
        self.table = setting.table(choice)
        self.points = ColumnDataSource(self._with_looks(self.table))
        self.lines = ColumnDataSource(self._line_columns([]))
        self._run_lines = ColumnDataSource(
            {name: [] for name in ("task", "outcome", "measure_task", "measure")}
        )
        self._marks = ColumnDataSource({"measure": [], "outcome": []})
        self._mean_spectra = ColumnDataSource(
            {name: [] for name in ("index", "mean", "colour", "dash")}
        )
        self._spans: list[Span] = []
        self.spectra = pd.DataFrame(columns=explorer_data.SPECTRUM_COLUMNS)

        measure = setting.measure(choice)
        self.curves = {"outcome": explorer_data.curves(setting.outcome(choice))}
        self.outcome_plot = self._draw_curves("outcome", choice.outcome, setting.outcome(choice))
        self.measure_plot = self.scatter_plot = None
        if measure is not None:
            self.curves["measure"] = explorer_data.curves(measure)
            self.measure_plot = self._draw_curves("measure", choice.measure, measure)
            self.measure_plot.x_range = self.outcome_plot.x_range
            self.scatter_plot = self._draw_scatter()
        self.spectrum_plot = self._draw_spectrum()
        self._bands: list[Any] = []
        self.points.selected.on_change("indices", self._select_points_by_hand)
        self.lines.selected.on_change("indices", self._select_lines_by_hand)

    @property
    def selection(self) -> list[Point]:
        """The selected points."""
        rows = self.table.iloc[self.points.selected.indices]
        return list(rows[["arm", "seed", "task"]].itertuples(index=False, name=None))

    def select(self, selection: Sequence[Point]) -> None:
        """Select points in all plots; those that are not shown are left out."""
        wanted = set(selection)
        keys = self.table[["arm", "seed", "task"]].itertuples(index=False, name=None)
        self._show_selection([index for index, key in enumerate(keys) if key in wanted])

    def show_task(self, task: int | None) -> None:
        """Draw the spectra at a task, and mark this task in the other plots.

        Args:
            task: its number, or None if no spectrum was taken.

        Raises:
            StudyError: the file can no longer be read.
        """
        if task is None:
            return
        self.spectra = self._setting.spectra(self._choice, task)
        self.lines.data = self._line_columns(list(self.spectra.groupby(RUN_KEYS, sort=False)))
        self._draw_mean_spectra()
        operator = self._setting.spectrum_operator(self._choice.measure)
        self.spectrum_plot.title.text = f"{operator_name(operator)} spectrum, task {task}"
        top = self.spectra["eigenvalue"].max()
        if top > 0:
            self.spectrum_plot.y_range.update(start=ROUND_OFF * top, end=2 * top)
        for span in self._spans:
            span.location = task
            span.visible = True
        self._marks.data = dict(
            self.table[self.table["task"] == task][["measure", "outcome"]].items()
        )
        self._show_selection(list(self.points.selected.indices))

    def _select_points_by_hand(self, attribute: str, old: list[int], new: list[int]) -> None:
        """Link the selection that a reader made in the curves or the scatter."""
        if not self._is_linking:
            self._show_selection(new)
            self._on_selection(self.selection)

    def _select_lines_by_hand(self, attribute: str, old: list[int], new: list[int]) -> None:
        """Select all points of the runs whose spectra a reader selected."""
        if self._is_linking:
            return
        runs = {(self.lines.data["arm"][index], self.lines.data["seed"][index]) for index in new}
        keys = self.table[RUN_KEYS].itertuples(index=False, name=None)
        self._show_selection([index for index, key in enumerate(keys) if key in runs])
        self._on_selection(self.selection)

    def _show_selection(self, indices: list[int]) -> None:
        """Set the selection of both sources, and draw lines through the points of its runs.

        If all runs are selected, as by tasks, no run stands out.
        """
        self._is_linking = True
        try:
            self.points.selected.indices = indices
            runs = set(self.table.iloc[indices][RUN_KEYS].itertuples(index=False, name=None))
            if len(runs) == len(self.table[RUN_KEYS].drop_duplicates()):
                runs = set()
            shown = zip(self.lines.data["arm"], self.lines.data["seed"], strict=True)
            self.lines.selected.indices = [index for index, run in enumerate(shown) if run in runs]
            self._run_lines.data = self._lines_of_runs(runs)
        finally:
            self._is_linking = False

    def _lines_of_runs(self, runs: set[Run]) -> dict[str, list[Any]]:
        """Return the lines of runs over tasks, through measured tasks only."""
        columns: dict[str, list[Any]] = {name: [] for name in self._run_lines.data}
        for (arm, seed), rows in self.table.groupby(RUN_KEYS, sort=False):
            if (arm, seed) in runs:
                outcomes, measures = rows.dropna(subset="outcome"), rows.dropna(subset="measure")
                columns["task"].append(outcomes["task"].tolist())
                columns["outcome"].append(outcomes["outcome"].tolist())
                columns["measure_task"].append(measures["task"].tolist())
                columns["measure"].append(measures["measure"].tolist())
        return columns

    def _line_columns(self, groups: list[Any]) -> dict[str, list[Any]]:
        """Return the columns of `lines` for spectra of runs."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("arm", "title", "seed", "colour", "index", "eigenvalue")
        }
        for (arm, seed), rows in groups:
            columns["arm"].append(arm)
            columns["title"].append(self._looks[arm].title)
            columns["seed"].append(seed)
            columns["colour"].append(self._looks[arm].colour)
            positive = rows[rows["eigenvalue"] > 0]
            columns["index"].append(positive["index"].tolist())
            columns["eigenvalue"].append(positive["eigenvalue"].tolist())
        return columns

    def _with_looks(self, table: pd.DataFrame) -> pd.DataFrame:
        """Add title and colour of each row's arm."""
        return table.assign(
            title=[self._looks[arm].title for arm in table["arm"]],
            colour=[self._looks[arm].colour for arm in table["arm"]],
        )

    def _draw_curves(self, column: str, quantity: str, values: xr.DataArray) -> Any:
        """Draw means over seeds with bands, and a point per run and task.

        Args:
            column: of the table of runs.
            quantity: its name.
            values: of the quantity, dims ``(arm, seed, task)``.
        """
        name = one_line_name(quantity)
        plot = new_figure(f"{name} over tasks", "task", name)
        shown = []
        for arm, rows in self.curves[column].groupby("arm", sort=False):
            look = self._looks[arm]
            if rows["low"].notna().all():
                plot.varea(
                    rows["task"].values,
                    rows["low"].values,
                    rows["high"].values,
                    fill_color=look.colour,
                    fill_alpha=self._style.band,
                )
            line = plot.line(
                rows["task"].values,
                rows["mean"].values,
                color=look.colour,
                line_dash=look.dash,
                line_width=2.5,
            )
            shown.append(line)
        plot.multi_line(
            "task" if column == "outcome" else "measure_task",
            column,
            source=self._run_lines,
            color=SELECTED,
            line_width=1.5,
        )
        span = Span(
            dimension="height",
            line_color=TASK_COLOUR,
            line_dash="dotted",
            line_width=1,
            visible=False,
        )
        plot.add_layout(span)
        self._spans.append(span)
        titles = [self._looks[arm].title for arm in self._choice.arms]
        for sentence in explorer_data.remarks(values, titles):
            title = Title(text=sentence, text_font_size="11px", text_font_style="normal")
            title.text_color = self._style.warning
            plot.add_layout(title, "above")
        shown.append(self._add_points(plot, "task", column, "width", alpha=0.3, size=5))
        plot.y_range.renderers = shown  # high enough for all seeds, but not always for the bands
        return plot

    def _draw_scatter(self) -> Any:
        """Draw measure and outcome of every run and task, with rings at the shown task."""
        names = one_line_name(self._choice.measure), one_line_name(self._choice.outcome)
        plot = new_figure("every seed and task", *names)
        plot.scatter(
            "measure",
            "outcome",
            source=self._marks,
            size=11,
            fill_alpha=0,
            line_color=TASK_COLOUR,
            line_width=1.2,
        )
        self._add_points(plot, "measure", "outcome", "both", alpha=0.6, size=7)
        return plot

    def _add_points(
        self, plot: Any, x: str, y: str, dimensions: Dimensions, alpha: float, size: int
    ) -> Any:
        """Add the points of all runs and tasks, with tools to select and to read them."""
        points = plot.scatter(
            x,
            y,
            source=self.points,
            size=size,
            color="colour",
            alpha=alpha,
            nonselection_alpha=0.06,
            selection_alpha=1.0,
            selection_line_color=SELECTED,
        )
        box = BoxSelectTool(dimensions=dimensions, renderers=[points])
        tooltips = [
            ("arm", "@title"),
            ("seed", "@seed"),
            ("task", "@task"),
            (one_line_name(self._choice.outcome), "@outcome{0.[0000]}"),
        ]
        if self._choice.measure:
            tooltips.append((one_line_name(self._choice.measure), "@measure{0.[000]}"))
        plot.add_tools(
            box, TapTool(renderers=[points]), HoverTool(renderers=[points], tooltips=tooltips)
        )
        plot.toolbar.active_drag = box
        return points

    def _draw_spectrum(self) -> Any:
        """Draw an empty spectrum; `show_task` fills it."""
        plot = new_figure("spectrum", "index", "positive eigenvalue", is_logarithmic=True)
        lines = plot.multi_line(
            "index",
            "eigenvalue",
            source=self.lines,
            color="colour",
            line_width=1,
            alpha=0.35,
            selection_line_width=1.5,
            selection_line_color=SELECTED,
            selection_alpha=1.0,
            nonselection_alpha=0.1,
        )
        plot.multi_line(
            "index",
            "mean",
            source=self._mean_spectra,
            color="colour",
            line_dash="dash",
            line_width=2.5,
        )
        tooltips = [("arm", "@title"), ("seed", "@seed")]
        plot.add_tools(TapTool(renderers=[lines]), HoverTool(renderers=[lines], tooltips=tooltips))
        return plot

    def _draw_mean_spectra(self) -> None:
        """Draw the mean spectrum of each arm with its band."""
        means = explorer_data.mean_spectra(self.spectra)
        means = means[means["mean"] > 0]
        for band in self._bands:
            self.spectrum_plot.renderers.remove(band)
        self._bands = []
        columns: dict[str, list[Any]] = {name: [] for name in self._mean_spectra.data}
        for arm, rows in means.groupby("arm", sort=False):
            look = self._looks[arm]
            columns["index"].append(rows["index"].tolist())
            columns["mean"].append(rows["mean"].tolist())
            columns["colour"].append(look.colour)
            columns["dash"].append(look.dash)
            if rows["low"].notna().all():
                # a logarithmic axis shows no interval that reaches 0, so it ends with the plot
                low = rows["low"].clip(lower=self.spectrum_plot.y_range.start)
                band = self.spectrum_plot.varea(
                    rows["index"].values,
                    low.values,
                    rows["high"].values,
                    fill_color=look.colour,
                    fill_alpha=self._style.band,
                )
                self._bands.append(band)
        self._mean_spectra.data = columns


def draw_copies(copies: pd.DataFrame, choice: Choice, style: Style) -> Any:
    """Plot the outcome of treated copies against a measure, coloured by family of treatment.

    Args:
        copies: from `SettingData.copies`, without missing values.
        choice: what is shown.
        style: the style of figures.
    """
    names = one_line_name(choice.measure), one_line_name(choice.outcome.removesuffix("_gap"))
    plot = new_figure("treated copies of checkpoints", *names)
    points = []
    for family in dict.fromkeys(copies["family"]):
        rows = copies[copies["family"] == family]
        source = ColumnDataSource(rows.assign(title=[arm_title(arm) for arm in rows["arm"]]))
        renderer = plot.scatter(
            "measure",
            "outcome",
            source=source,
            size=7,
            color=style.families[family],
            alpha=0.6,
            nonselection_alpha=0.06,
            legend_label=FAMILY_LABELS[family],
            name=family,
        )
        points.append(renderer)
    tooltips = [
        ("arm", "@title"),
        ("seed", "@seed"),
        ("task", "@task"),
        ("treatment", "@treatment"),
        (names[1], "@outcome{0.[0000]}"),
        (names[0], "@measure{0.[000]}"),
    ]
    plot.add_tools(HoverTool(renderers=points, tooltips=tooltips))
    legend = plot.legend[0]
    legend.update(
        click_policy="hide",
        ncols=2,
        label_text_font_size="11px",
        border_line_alpha=0,
        padding=0,
        margin=0,
        spacing=0,
    )
    plot.add_layout(legend, "below")
    return plot


def new_figure(title: str, x: str, y: str, is_logarithmic: bool = False) -> Any:
    """Create an empty plot as wide as its place on the page."""
    scale: Literal["log", "linear"] = "log" if is_logarithmic else "linear"
    plot: Any = figure(
        title=title[:1].upper() + title[1:],
        x_axis_label=x,
        y_axis_label=y,
        x_axis_type=scale,
        y_axis_type=scale,
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        toolbar_location="above",
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.title.text_font_size = "14px"
    plot.outline_line_color = None
    plot.grid.grid_line_alpha = 0.5
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.minor_tick_line_color = None
    return plot
