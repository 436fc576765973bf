"""Serve a page that shows a study's datasets: choices on the left, linked plots on the right."""

import html
import math
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import panel as pn

from plasticity.config import quantities
from plasticity.config.titles import arm_title
from plasticity.errors import StudyError
from plasticity.report import explorer_data, explorer_plots, panels
from plasticity.report.explorer_data import Choice, SettingData
from plasticity.report.explorer_files import StudyFiles
from plasticity.report.explorer_plots import LinkedPlots, Point
from plasticity.report.style import Style
from plasticity.training.outcomes import stages

CHECK_MILLISECONDS = 10_000  # between two looks for new datasets
DEFAULT_ARMS = list(panels.REFERENCES)
EVALUATION_POINTS = {
    "": "independent of data",
    "previous": "previous task's data",
    "next": "next task's data",
    "fresh": "next task's data, fresh network",
}
BLOCKS = {"last_two": "last two layers", "all": "whole network"}
OTHER_MEASURES = "Units, weights and updates"
SHOWN_NAMES = 6  # runs that the text of a selection lists

FONT = "font-family: system-ui, sans-serif; font-size: 14px; line-height: 1.4; color: #222;"
# The sidebar grows to a row of its own if there is no room for it beside the plots.
SIDEBAR_STYLE = {"flex": "1 1 270px", "min-width": "0", "gap": "0 16px"}
PLOTS_STYLE = {"flex": "999 1 520px", "min-width": "0"}
WIDGET_STYLE = {"flex": "1 1 230px"}
PLOT_STYLE = {"flex": "1 1 44%", "min-width": "min(330px, 100%)"}
NUMBERS_STYLE = {"flex": "1 1 44%", "min-width": "min(440px, 100%)", "overflow-x": "auto"}
FULL_WIDTH = {"flex": "1 1 100%"}
HTML_STYLESHEET = f"""
:host {{ {FONT} }}
h1 {{ font-size: 20px; margin: 0 0 2px; font-weight: 600; }}
p {{ margin: 2px 0; }}
table {{ border-collapse: collapse; font-size: 13px; }}
th, td {{ text-align: right; padding: 3px 10px 3px 0; white-space: nowrap; }}
th {{ font-weight: 600; border-bottom: 1px solid #ccc; }}
th:first-child, td:first-child {{ text-align: left; }}
caption {{ text-align: left; font-weight: 600; padding: 6px 0 2px; white-space: nowrap; }}
.swatch {{ display: inline-block; width: 26px; height: 0; vertical-align: middle;
  margin: 0 5px 0 0; border-top-width: 3px; }}
.arm {{ margin-right: 18px; white-space: nowrap; }}
.quiet {{ color: #666; font-size: 13px; font-weight: 400; }}
.problem {{ background: #fff3e0; border-left: 4px solid #d55e00; padding: 6px 10px; }}
"""
CSS_DASHES = {"solid": "solid", "dashed": "dashed", "dotted": "dotted", "dashdot": "dashed"}


def serve(study: str, files: StudyFiles, style: Style, port: int) -> None:
    """Serve the page to this machine only, until the process ends.

    Pages of other sites cannot connect: only the page's own address is an allowed origin. The page
    requests nothing from other servers.

    Args:
        study: its name.
        files: its datasets.
        style: the style of figures.
        port: to serve on; 0 takes any free one.

    Raises:
        StudyError: another program uses the port.
    """
    port = _check_port(port)

    def new_page() -> pn.viewable.Viewable:
        page = Page(study, files, style)
        pn.state.add_periodic_callback(page.look_for_new_results, CHECK_MILLISECONDS)
        return page.layout

    pn.serve(
        new_page,
        port=port,
        address="localhost",
        websocket_origin=[f"localhost:{port}"],
        show=False,
        title=f"Study {study}",
    )


def _check_port(port: int) -> int:
    """Return a port that is free now: the given one, or any if it is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise StudyError(
                f"port {port} cannot be used ({error.strerror}). Choose another: "
                "make explore ARGS=--port=0"
            ) from error
        return int(probe.getsockname()[1])


class Page:
    """The page of one reader. A choice in one setting carries over to the next, if it offers it.

    Attributes:
        layout: what is shown.
        widgets: by name: setting, arms, outcome, measure, evaluation_point, block and task.
        downloads: buttons by the name of their table: runs, curves, spectrum and copies.
        plots: the linked plots; None if there is nothing to show.
        texts: panes with HTML, by name.
    """

    def __init__(self, study: str, files: StudyFiles, style: Style) -> None:
        """Build the page, on the setting with the largest loss of plasticity.

        Args:
            study: its name.
            files: its datasets.
            style: the style of figures.
        """
        self._study = study
        self._files = files
        self._style = style
        self._is_updating = False
        self._has_task = False  # whether the slider holds a choice
        self._version = -1
        self._problem = ""  # why the chosen setting or its spectrum could not be read
        self._setting: SettingData | None = None
        self._shown_setting: str | None = None
        self._tables: dict[str, pd.DataFrame] = {}
        self.plots: LinkedPlots | None = None

        self.widgets: dict[str, Any] = {
            "setting": pn.widgets.Select(name="Setting"),
            "arms": pn.widgets.MultiChoice(name="Arms"),
            "outcome": pn.widgets.Select(name="Outcome"),
            "measure": pn.widgets.Select(name="Measure"),
            "evaluation_point": pn.widgets.Select(name="Measured on"),
            "block": pn.widgets.Select(name="Layers"),
            "task": pn.widgets.DiscreteSlider(name="Task of the spectrum", options=[0]),
        }
        self.reload = pn.widgets.Button(name="Look for new results", button_type="default")
        self.clear = pn.widgets.Button(name="Clear the selection", button_type="default")
        self.downloads = {name: self._download_button(name) for name in DOWNLOADS}
        self.texts = {
            name: pn.pane.HTML("", stylesheets=[HTML_STYLESHEET], sizing_mode="stretch_width")
            for name in ("head", "files", "legend", "selection", "numbers")
        }
        self._plot_box = pn.FlexBox(sizing_mode="stretch_width", gap="4px 12px")
        self.layout = self._lay_out()

        self._react()
        self.look_for_new_results()

    def _react(self) -> None:
        """Make widgets and buttons change the page."""
        reactions = {"setting": self._change_setting, "task": self._change_task}
        for name, widget in self.widgets.items():
            reaction = reactions.get(name, self._change_choice)
            pn.bind(_ignoring_value(reaction), widget, watch=True)
        pn.bind(_ignoring_value(self.look_for_new_results), self.reload, watch=True)
        pn.bind(_ignoring_value(self._clear_selection), self.clear, watch=True)

    def look_for_new_results(self) -> None:
        """Take in datasets that are new or replaced, and redraw what they change."""
        self._files.refresh()
        if self._files.version == self._version and not self._problem:
            return
        self._version = self._files.version
        self._problem = ""
        self._offer_settings()
        self._describe_files()
        name = self.widgets["setting"].value
        if name is None:
            self._show_nothing("No setting is finished yet. New results will appear here.")
        elif name != self._shown_setting or self._is_replaced(name):
            self._change_setting()
        elif self.plots is not None:
            self._show_task()

    def _is_replaced(self, name: str) -> bool:
        """Tell whether the shown numbers are not those of the file."""
        try:
            return self._files.load(name) is not self._setting
        except StudyError:
            return True

    @property
    def choice(self) -> Choice:
        """What the widgets say."""
        values = {name: widget.value for name, widget in self.widgets.items()}
        return Choice(
            arms=tuple(values["arms"]),
            outcome=values["outcome"],
            measure=values["measure"] or "",
            evaluation_point=values["evaluation_point"] or "",
            block=values["block"] or "",
        )

    @contextmanager
    def _updating(self) -> Iterator[None]:
        """Change widgets without drawing for each change."""
        was_updating, self._is_updating = self._is_updating, True
        try:
            yield
        finally:
            self._is_updating = was_updating

    # Widgets

    def _offer_settings(self) -> None:
        """Offer all settings; those without a dataset cannot be chosen."""
        titles = self._files.titles()
        marks = dict.fromkeys(self._files.unfinished, " (not finished)")
        marks |= dict.fromkeys(
            set(self._files.problems) - set(self._files.datasets), " (unreadable)"
        )
        options = {f"{title}{marks.get(name, '')}": name for name, title in titles.items()}
        options = _distinct(options, titles)
        widget = self.widgets["setting"]
        chosen = widget.value if widget.value in self._files.datasets else self._files.most_lost()
        with self._updating():
            widget.param.update(
                options=options if chosen else {"none is finished": None, **options},
                disabled_options=[name for name in titles if name in marks],
                value=chosen,
            )

    def _change_setting(self) -> None:
        """Show the chosen setting."""
        name = self.widgets["setting"].value
        if self._is_updating or name is None:
            return
        self._shown_setting = name
        try:
            self._setting = self._files.load(name)
        except StudyError as error:
            self._setting = None
            self._problem = str(error)
            self._show_nothing(self._problem)
            return
        setting = self._setting
        with self._updating():
            arms = {arm_title(arm): arm for arm in setting.arms}
            chosen = self.widgets["arms"].value or DEFAULT_ARMS
            known = [arm for arm in chosen if arm in setting.arms]
            self.widgets["arms"].param.update(options=arms, value=known or setting.arms[:1])
            names = {quantities.one_line_name(name): name for name in setting.outcomes}
            _offer(self.widgets["outcome"], names, "final_error")
            self._offer_measures(setting)
            self._offer_variants(setting)
        self._describe_loss(name)
        self._draw()

    def _offer_measures(self, setting: SettingData) -> None:
        """Offer the measures of a setting, in a group for each operator."""
        groups: dict[str, dict[str, str]] = {}
        for name in setting.variants:
            operator = quantities.split_operator(name)[0]
            group = quantities.operator_name(operator) if operator else OTHER_MEASURES
            groups.setdefault(group, {})[quantities.one_line_name(name)] = name
        # operators come first, in the order of the study
        ordered = {group: groups[group] for group in sorted(groups, key=OTHER_MEASURES.__eq__)}
        primary = panels.primary_measure({"": setting.numbers})
        widget = self.widgets["measure"]
        names = list(setting.variants)
        value = widget.value if widget.value in names else primary
        value = value if value in names else next(iter(names), None)
        widget.param.update(groups=ordered, value=value, disabled=not names)

    def _offer_variants(self, setting: SettingData) -> None:
        """Offer the evaluation points and blocks at which the chosen measure has values."""
        variants = setting.variants.get(self.widgets["measure"].value, [])
        points = {EVALUATION_POINTS.get(point, point): point for point, _ in variants}
        _offer(self.widgets["evaluation_point"], points, quantities.EXPLANATION["evaluation_point"])
        chosen_point = self.widgets["evaluation_point"].value
        blocks = {
            BLOCKS.get(block, block.replace("_", " ")): block
            for point, block in variants
            if point == chosen_point
        }
        _offer(self.widgets["block"], blocks, quantities.EXPLANATION["block"])

    def _change_choice(self) -> None:
        """Show what the widgets say now."""
        if self._is_updating or self._setting is None:
            return
        with self._updating():
            self._offer_variants(self._setting)
        self._draw()

    def _change_task(self) -> None:
        """Show the spectrum at the chosen task."""
        if not self._is_updating and self.plots is not None:
            self._show_task()

    # Plots and texts

    def _draw(self) -> None:
        """Draw all plots; the selection stays where its points are still shown."""
        setting, choice = self._setting, self.choice
        if setting is None:
            return
        if not choice.arms:
            self._show_nothing("Choose an arm.")
            return
        selection = self.plots.selection if self.plots else []
        looks = explorer_plots.looks_of(setting.arms, self._style)
        self.plots = LinkedPlots(setting, choice, looks, self._style, self._follow_selection)
        copies = setting.copies(choice).dropna()
        self._tables = {
            "runs": self.plots.table,
            "curves": pd.concat(
                [table.assign(quantity=name) for name, table in self.plots.curves.items()]
            ),
            "copies": copies,
        }
        self.downloads["copies"].disabled = copies.empty
        self._offer_tasks()
        self._show_legend(looks, choice.arms)
        self._show_numbers()
        plots: list[Any] = [self.plots.outcome_plot]
        if self.plots.measure_plot is None:
            plots.append(_sentence("The study has no measures, so there is only the outcome."))
        else:
            plots += [self.plots.measure_plot, self.plots.scatter_plot]
        plots.append(self._spectrum_or_reason(setting, choice))
        if len(copies):
            plots.append(explorer_plots.draw_copies(copies, choice, self._style))
        self._plot_box.objects = [
            *(_place(plot) for plot in plots),
            pn.Column(self.texts["numbers"], styles=NUMBERS_STYLE),
        ]
        self._show_task()
        self.plots.select(selection)
        self._describe_selection(self.plots.selection)

    def _offer_tasks(self) -> None:
        """Offer the tasks whose spectra were taken; the chosen one stays, or the last is chosen."""
        tasks = self._setting.spectrum_tasks(self.choice) if self._setting else []
        if self._setting and self._setting.is_estimate(self.choice):
            tasks = []
        widget = self.widgets["task"]
        with self._updating():
            if tasks:
                value = widget.value if self._has_task and widget.value in tasks else tasks[-1]
                widget.param.update(options=tasks, value=value)
                self._has_task = True
            widget.visible = bool(tasks)
            self.downloads["spectrum"].disabled = not tasks

    def _spectrum_or_reason(self, setting: SettingData, choice: Choice) -> Any:
        """Return the plot of the spectrum, or why there is none."""
        if not setting.spectrum_tasks(choice):
            return _sentence("The study has no eigenvalues for this choice.")
        if setting.is_estimate(choice):
            return _sentence(
                "The spectrum of this choice is an estimate, which has no single eigenvalues. "
                "Choose one layer, or another operator."
            )
        return self.plots.spectrum_plot if self.plots else None

    def _show_task(self) -> None:
        """Draw the spectrum at the chosen task."""
        if self.plots is None or not self.widgets["task"].visible:
            self._tables["spectrum"] = pd.DataFrame(columns=explorer_data.SPECTRUM_COLUMNS)
            return
        try:
            self.plots.show_task(self.widgets["task"].value)
        except StudyError as error:
            self._problem = str(error)
            self._describe_files()
            return
        self._tables["spectrum"] = self.plots.spectra.assign(task=self.widgets["task"].value)

    def _follow_selection(self, selection: list[Point]) -> None:
        """Describe a selection by hand, and move the spectrum to its last measured task."""
        tasks = sorted({task for _, _, task in selection})
        all_tasks = self.plots.table["task"].nunique() if self.plots else 0
        measured = [task for task in self.widgets["task"].options if task in tasks]
        # a selected run has all tasks, so it moves nothing
        if measured and len(tasks) < all_tasks and self.widgets["task"].visible:
            self.widgets["task"].value = measured[-1]
        self._describe_selection(selection)

    def _clear_selection(self) -> None:
        """Select nothing."""
        if self.plots is not None:
            self.plots.select([])
            self._describe_selection([])

    def _show_nothing(self, sentence: str) -> None:
        """Show a sentence in the place of plots."""
        self.plots = None
        self._tables = {}
        self._plot_box.objects = [_sentence(sentence)]
        for name in ("legend", "selection", "numbers"):
            self.texts[name].object = ""

    def _describe_loss(self, name: str) -> None:
        """Write which setting is shown, and how much plasticity is lost in it."""
        loss = self._files.losses[name]
        low, high = float(loss.low), float(loss.high)
        title = html.escape(self._files.titles()[name])
        if np.isnan(loss.value):
            sentence = "The loss of plasticity is not known: no run has a gap to the baseline."
        else:
            interval = ""
            if np.isfinite(low):
                interval = f" (95 % interval {number(low)} to {number(high)})"
            sentence = (
                "Loss of plasticity without an intervention: from the first task to late ones, the "
                f"gap of the final error to a fresh network changes by "
                f"<b>{number(float(loss.value))}</b>"
                f"{interval}."
            )
        if name == self._files.most_lost() and len(self._files.datasets) > 1:
            sentence += " This is the largest loss of all finished settings."
        study = f'<span class="quiet">study {html.escape(self._study)}</span>'
        self.texts["head"].object = f"<h1>{title} {study}</h1><p>{sentence}</p>"

    def _describe_files(self) -> None:
        """List what is not finished, is computed again, or cannot be read."""
        files, titles = self._files, self._files.titles()
        lines = []
        if files.unfinished:
            names = "; ".join(html.escape(titles[name]) for name in files.unfinished)
            count = len(titles)
            lines.append(
                f'<p class="quiet"><b>Not finished</b> ({len(files.unfinished)} of {count} '
                f"settings): {names}. New results appear by themselves.</p>"
            )
        if files.recomputed:
            names = "; ".join(html.escape(titles[name]) for name in sorted(files.recomputed))
            lines.append(
                f'<p class="quiet"><b>Being recomputed</b>: {names}. Until then you see the former '
                "numbers.</p>"
            )
        sentences = [*files.problems.values(), self._problem]
        lines += [
            f'<p class="problem">{html.escape(sentence)}</p>' for sentence in sentences if sentence
        ]
        self.texts["files"].object = "".join(lines)

    def _show_legend(self, looks: Mapping[str, explorer_plots.Look], arms: Sequence[str]) -> None:
        """Show the colours of arms, and what lines and bands are."""
        entries = [
            f'<span class="arm"><span class="swatch" style="border-top-color: {looks[arm].colour}; '
            f'border-top-style: {CSS_DASHES[looks[arm].dash]}"></span>'
            f"{html.escape(looks[arm].title)}</span>"
            for arm in arms
        ]
        self.texts["legend"].object = (
            f"<p>{''.join(entries)}</p>"
            '<p class="quiet">Lines: mean over seeds. Bands: 95 % interval of that mean. Points: '
            "one seed and task. Click a point or a spectrum, or drag a box, to select the same "
            "runs and tasks in all plots. Dotted lines and grey rings mark the task of the "
            "spectrum.</p>"
        )

    def _describe_selection(self, selection: Sequence[Point]) -> None:
        """Write which runs and tasks are selected."""
        if not selection:
            self.texts["selection"].object = '<p class="quiet">Nothing is selected.</p>'
            return
        runs = [
            f"{arm_title(arm)}, seed {seed}"
            for arm, seed in dict.fromkeys((arm, seed) for arm, seed, _ in selection)
        ]
        tasks = [str(task) for task in sorted({task for _, _, task in selection})]
        self.texts["selection"].object = (
            f"<p><b>Selected:</b> {_counted(len(selection), 'point')} of "
            f"{html.escape(_listed(runs, 'run', '; '))} · "
            f"task{'s' * (len(tasks) > 1)} {', '.join(tasks)}</p>"
        )

    def _show_numbers(self) -> None:
        """Show the means over early and late tasks of the chosen outcome and measure."""
        if self._setting is None:
            return
        choice = self.choice
        shown = {choice.outcome: self._setting.outcome(choice)}
        measure = self._setting.measure(choice)
        if measure is not None:
            shown[choice.measure] = measure
        tasks = self._setting.numbers.sizes["task"]
        tables = [
            numbers_table(quantities.one_line_name(name), self._setting.stage_means(values), tasks)
            for name, values in shown.items()
        ]
        self.texts["numbers"].object = (
            f'{"".join(tables)}<p class="quiet">Means over seeds and tasks, ± half of the 95 % '
            "interval over seeds.</p>"
        )

    # Layout and downloads

    def _download_button(self, name: str) -> Any:
        """Create the button that downloads a shown table as CSV."""
        return pn.widgets.FileDownload(
            callback=lambda: StringIO(self.csv(name)),
            filename=f"{self._study}_{name}.csv",
            label=DOWNLOADS[name],
            button_type="light",
            sizing_mode="stretch_width",
            margin=(2, 10),
            styles=WIDGET_STYLE,
        )

    def csv(self, name: str) -> str:
        """Return a shown table as CSV, with columns that say what was chosen.

        Args:
            name: one of `DOWNLOADS`.
        """
        choice = self.choice
        table = self._tables.get(name, pd.DataFrame())
        table = table.rename(
            columns={"outcome": choice.outcome, "measure": choice.measure or "none"}
        )
        if "quantity" in table:
            names = {"outcome": choice.outcome, "measure": choice.measure}
            table = table.assign(quantity=table["quantity"].map(names))
        point, block = choice.evaluation_point, choice.block
        keys: dict[str, Any] = {"setting": self._shown_setting}
        if name == "spectrum" and self._setting:
            point, block = self._setting.spectrum_place(choice)
            keys["operator"] = self._setting.spectrum_operator(choice.measure)
        keys |= {"evaluation_point": point, "block": block}
        table = table.assign(**keys)
        return str(table[[*keys, *table.columns.drop(list(keys))]].to_csv(index=False))

    def _lay_out(self) -> pn.viewable.Viewable:
        """Place the parts of the page."""
        for widget in (*self.widgets.values(), self.clear, self.reload):
            widget.sizing_mode = "stretch_width"
        choices = [
            # a box of its own, because a slider hands its style on to its parts
            pn.Column(widget, styles=WIDGET_STYLE)
            for widget in (*self.widgets.values(), self.clear, self.reload)
        ]
        downloads = pn.pane.HTML(
            "<b>Download what is shown (CSV)</b>", stylesheets=[HTML_STYLESHEET], styles=FULL_WIDTH
        )
        sidebar = pn.FlexBox(
            *choices,
            downloads,
            *self.downloads.values(),
            styles=SIDEBAR_STYLE,
            align_content="flex-start",
        )
        plots = pn.Column(
            self.texts["legend"],
            self.texts["selection"],
            self._plot_box,
            styles=PLOTS_STYLE,
            sizing_mode="stretch_width",
        )
        return pn.Column(
            self.texts["head"],
            self.texts["files"],
            pn.FlexBox(sidebar, plots, sizing_mode="stretch_width", gap="8px 20px"),
            sizing_mode="stretch_width",
            margin=10,
        )


def _ignoring_value(reaction: Callable[[], None]) -> Callable[[object], None]:
    """Turn a function into one that is called with the value of a widget."""
    return lambda value: reaction()


DOWNLOADS = {
    "runs": "Every seed and task",
    "curves": "Means and intervals",
    "spectrum": "Spectra at the task",
    "copies": "Treated copies",
}


def _offer(widget: Any, options: dict[str, str], default: str) -> None:
    """Offer options by title; the value stays if it can, else it is the default or the last."""
    values = list(options.values())
    value = next((wanted for wanted in (widget.value, default) if wanted in values), None)
    if value is None and values:
        value = values[-1]
    widget.param.update(options=options, value=value, disabled=len(values) < 2)


def _distinct(options: dict[str, str], titles: Mapping[str, str]) -> dict[str, str]:
    """Use names of the config if two settings have the same title."""
    return options if len(options) == len(titles) else {name: name for name in titles}


def _place(plot: Any) -> pn.viewable.Viewable:
    """Put a plot or a sentence into its place in the grid of plots."""
    if isinstance(plot, pn.viewable.Viewable):
        return plot
    return pn.Column(pn.pane.Bokeh(plot, sizing_mode="stretch_width"), styles=PLOT_STYLE)


def _sentence(text: str) -> pn.pane.HTML:
    """Show a sentence in the place of a plot."""
    return pn.pane.HTML(
        f"<p>{html.escape(text)}</p>", stylesheets=[HTML_STYLESHEET], styles=PLOT_STYLE
    )


def numbers_table(title: str, means: pd.DataFrame, tasks: int) -> str:
    """Write means over early and late tasks as an HTML table.

    Args:
        title: of the table.
        means: from `SettingData.stage_means`.
        tasks: number of tasks of the runs.
    """
    windows = stages(tasks)
    names = [
        f"{stage}: {_tasks_of(windows[stage])}" if stage in windows else stage
        for stage in explorer_data.STAGES
    ]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for arm, of_arm in means.groupby("arm", sort=False):
        by_stage = of_arm.set_index("stage")
        cells = "".join(
            f"<td>{_with_interval(by_stage.loc[stage])}</td>" for stage in explorer_data.STAGES
        )
        rows.append(f"<tr><td>{html.escape(arm_title(arm))}</td>{cells}</tr>")
    if not rows:
        return ""
    caption = html.escape(title[:1].upper() + title[1:])
    return f"<table><caption>{caption}</caption><tr><th>arm</th>{head}</tr>{''.join(rows)}</table>"


def _with_interval(row: pd.Series) -> str:
    """Write a mean and half the width of its interval; the intervals are symmetric."""
    if pd.isna(row["mean"]):
        return html.escape(row["note"] or "not measured")
    if pd.isna(row["high"]):
        return number(row["mean"])
    reach = float(row["high"] - row["mean"])
    # as many decimals as give the interval two digits
    decimals = max(0, 1 - math.floor(math.log10(reach))) if reach > 0 else 3
    # Python's option z writes no negative zero
    return f"{row['mean']:z.{decimals}f} ± {reach:.{decimals}f}".replace("-", "−")


def number(value: float) -> str:
    """Write a number with three significant digits: ``0.0123``, ``12.3``, ``1230``."""
    text = f"{value:#.3g}".rstrip(".")
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 1e6 else text.replace("-", "−")


def _tasks_of(window: slice) -> str:
    """Write the tasks of a stage: ``task 1``, ``tasks 1–5``."""
    first, last = window.start, window.stop - 1
    return f"task {first}" if first == last else f"tasks {first}–{last}"


def _counted(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(names: Sequence[str], noun: str, separator: str) -> str:
    """List names, or count them if they are many."""
    return separator.join(names) if len(names) <= SHOWN_NAMES else _counted(len(names), noun)
