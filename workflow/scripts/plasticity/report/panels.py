"""What figures share: grids of panels that wrap, curves with their bands, labels at the lines' ends. Torch is never imported."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from plasticity.config.models import BASELINE
from plasticity.report.style import Style
from plasticity.statistics.resampling import t_interval

Panels = dict[tuple[str, str], Axes]  # by row and column

OPERATORS = {"fisher": "Fisher", "ggn": "GGN", "hessian": "Hessian", "ntk": "NTK"}
LABELS = {
    "final_error": "final error",
    "final_error_gap": "gap to a\nfresh network",
    "feature_rank": "feature rank\n(last hidden)",
    "dormant_fraction": "dormant units\n(share)",
    "dead_fraction": "dead units\n(share)",
    "weight_norm": "weight norm",
    "update_norm": "update norm",
}
REFERENCES = {"none": "no intervention", BASELINE: "fresh network per task"}
SHARES = (
    "error",
    "_gap",
    "_fraction",
    "_overlap",
)  # how quantities end that mean the same in every setting: their panels share an axis
SEVERAL = ("last_two", "all")  # blocks that are no layer
SMALL = 6  # points


def grid(
    rows: Mapping[str, str],
    columns: Mapping[str, str],
    style: Style,
    height: float,
    xlabel: str = "task",
    apart: Mapping[str, str] | None = None,
) -> tuple[Figure, Panels]:
    """Panels: a row per quantity, a column per setting; more columns than the page is wide go on in a band beneath.

    Args:
        rows: what each shows, and its label.
        columns: what each shows, and its title.
        style: the page.
        height: of a panel, in inches.
        xlabel: of the x axis that rows share.
        apart: rows with an x axis of their own, and its label.
    """
    apart, names = apart or {}, list(columns)
    wide = min(len(names), style.panels)
    bands = -(-len(names) // wide)
    figure, axes = plt.subplots(
        bands * len(rows),
        wide,
        figsize=(style.width(wide), bands * (len(rows) * height + 0.35) + 0.2),
        squeeze=False,
    )
    shared = [row for row in rows if row not in apart]
    panels: Panels = {}
    for place, name in enumerate(names):
        band, column = divmod(place, wide)
        for number, (row, label) in enumerate(rows.items()):
            axis = panels[row, name] = axes[band * len(rows) + number, column]
            if row in shared and row != shared[0]:
                axis.sharex(panels[shared[0], name])
            if row.endswith(SHARES) and place:
                axis.sharey(panels[row, names[0]])
                axis.tick_params(labelleft=column == 0)
            if not column:
                axis.set_ylabel(label)
            if row in apart or row == shared[-1]:
                axis.set_xlabel(apart.get(row, xlabel))
            else:
                axis.tick_params(labelbottom=False)
        panels[next(iter(rows)), name].set_title(columns[name])
    for of_band in np.split(axes[:, 0], bands):
        figure.align_ylabels(
            list(of_band)
        )  # of all bands at once takes long: the square of the number of rows
    for axis in axes.flat[::-1]:
        if axis not in panels.values():
            axis.remove()
    return figure, panels


def finish(figure: Figure, panels: Panels, style: Style, legend: bool = True) -> Figure:
    """The last touch: empty panels say so, one legend stands above all, labels stand in line."""
    for axis in panels.values():
        if not axis.has_data():
            axis.text(
                0.5,
                0.5,
                "not measured",
                transform=axis.transAxes,
                ha="center",
                va="center",
                color=style.quiet,
            )
            axis.set(xticks=[], yticks=[])
    entries = {
        label: line
        for axis in panels.values()
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if legend and entries:
        ncols = max(1, int(figure.get_figwidth() / (0.05 * max(map(len, entries)) + 0.4)))
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper center",
            ncols=min(len(entries), ncols),
        )
    return figure


def over_tasks(
    panels: Panels, datasets: Mapping[str, xr.Dataset], rows: Iterable[str], style: Style
) -> None:
    """The arm without an intervention beside a fresh network per task: a row per outcome or measure, a column per setting."""
    for name in rows:
        for setting, data in datasets.items():
            for arm, label in REFERENCES.items():
                curve(
                    panels[name, setting],
                    series(data, name, arm),
                    style,
                    label,
                    **style.of_arm(arm),
                )


def series(
    data: xr.Dataset, name: str, arm: str, evaluation_point: str = "next", block: str | None = None
) -> xr.DataArray:
    """One arm's values of an outcome or a measure, dims ``(seed, task, …)``; all NaN where the study did not measure it.

    Where no block is named, that of the whole network; of the feature rank, which it does not have, that of the last hidden layer.
    """
    missing = data["fresh_final_error"] * np.nan
    if (
        name not in data
        or arm not in data.arm
        or ("evaluation_point" in data[name].dims and evaluation_point not in data.evaluation_point)
    ):
        return missing
    values = data[name].sel(arm=arm)
    if "evaluation_point" in values.dims:
        values = values.sel(evaluation_point=evaluation_point)
    if "block" in values.dims and block is not None and block not in values.block:
        return missing
    if "block" in values.dims:
        values = values.sel(block=block) if block else values.dropna("block", how="all")
        if "block" in values.dims:
            values = values.isel(block=-1) if values.sizes["block"] else missing
    return values.transpose("seed", "task", ...)


def curve(
    axis: Axes, values: xr.DataArray, style: Style, label: str, along: str = "task", **look: Any
) -> bool:
    """Mean over seeds, with a band that is the 95 % interval of that mean; whether there was one.

    Seeds with a gap where others have none (a diverged run) and tasks that were not measured are left out, and the panel says how many
    seeds are left. The panel is as high as the seeds reach: a wide band may leave it.
    """
    if along not in values.dims:
        return False
    measured = values.dropna(along, how="all")
    kept = measured.dropna("seed", how="any")
    if not measured.size:
        return False
    if kept.sizes["seed"] < values.sizes["seed"]:
        remark(axis, f"{label}: {kept.sizes['seed']} of {values.sizes['seed']} seeds", style)
    if not kept.size:
        return False
    places, runs = kept[along].values, kept.transpose(along, "seed").values
    axis.plot(
        places, runs.mean(axis=1), label=label, marker="o" if len(places) == 1 else None, **look
    )
    axis.update_datalim(
        np.column_stack(
            [np.repeat(places, 2), np.column_stack([runs.min(axis=1), runs.max(axis=1)]).ravel()]
        )
    )
    low, high = t_interval(runs)
    if np.isfinite(low).all():
        band(axis, places, low, high, look["color"], style)
    axis.autoscale_view()
    return True


def band(
    axis: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, style: Style
) -> None:
    """An interval along a line, which does not widen the panel."""
    axis.add_collection(
        FillBetweenPolyCollection("x", x, low, high, color=colour, alpha=style.band, linewidth=0),
        autolim=False,
    )


def remark(axis: Axes, text: str, style: Style, colour: str = "") -> None:
    """A line of small text above a panel, where it hides no data; of a panel with a heading, a further line of that."""
    if axis.get_title():
        axis.set_title(f"{axis.get_title()}\n{text}")
    else:
        lines = [line for line in (axis.get_title(loc="right"), text) if line]
        axis.set_title(
            "\n".join(lines), loc="right", fontsize=SMALL, color=colour or style.quiet, pad=2
        )


def label_ends(axis: Axes, height: float) -> None:
    """Each line's label at its right end, moved as far as it takes not to touch another.

    Args:
        axis: whose lines are labelled.
        height: of the panel, in inches.
    """
    lines = [line for line in axis.lines if not str(line.get_label()).startswith("_")]
    ends = [np.column_stack(line.get_data())[-1] for line in lines]
    axis.get_ylim()  # lines have places only after axes have limits
    wanted = (
        axis.transAxes.inverted().transform(axis.transData.transform(ends))[:, 1]
        if lines
        else np.empty(0)
    )
    for line, place in zip(lines, spread(wanted, (SMALL + 1.0) / (72 * 0.8 * height)), strict=True):
        axis.annotate(
            str(line.get_label()),
            (1.02, place),
            xycoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=line.get_color(),
            annotation_clip=False,
        )


def logarithmic(axis: Axes) -> None:
    """A logarithmic y axis whose ticks are plain numbers, close enough that there is more than one."""
    if not axis.has_data():
        return
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Places at least a gap apart, in the same order, as near to the wanted ones as least squares has it.

    Args:
        wanted: places, shape ``(label,)``.
        gap: between neighbours.
    """
    order = np.argsort(wanted, kind="stable")
    pools: list[list[float]] = []  # of neighbours that touch: their mean, and how many they are
    for number, place in enumerate(wanted[order]):
        pools.append([place - number * gap, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    found = np.empty(len(order))
    found[order] = (
        np.repeat([mean for mean, _ in pools], [int(count) for _, count in pools])
        + np.arange(len(order)) * gap
    )
    return found


def titles(settings: Iterable[str]) -> dict[str, str]:
    """Names of settings as headings, of at most so many letters a line as a panel is wide."""
    return {name: "\n".join(textwrap.wrap(name.replace("_", " "), 24)) for name in settings}


def words(name: str) -> str:
    """A measure's or an outcome's name in one line."""
    if name in LABELS:
        return LABELS[name].replace("\n", " ")
    operator, _, number = name.partition("_")
    return (
        f"{OPERATORS[operator]} {number.replace('_', ' ')}"
        if operator in OPERATORS
        else name.replace("_", " ")
    )


def short(arm: str) -> str:
    """An arm's name without the words that go without saying: ``l2(strength=0.01)`` → ``l2 0.01``."""
    method, _, options = arm.rstrip(")").partition("(")
    values = [option.partition("=") for option in options.split(", ")] if options else []
    return (f"{method} {values[0][2]}" if len(values) == 1 else arm).replace(
        "$", r"\$"
    )  # to matplotlib a dollar begins a formula


def operators_of(datasets: Mapping[str, xr.Dataset]) -> list[str]:
    """The operators that any setting has."""
    return [
        name
        for name in OPERATORS
        if any(f"{name}_effective_rank" in data for data in datasets.values())
    ]


def main_operator(datasets: Mapping[str, xr.Dataset]) -> str:
    """The operator that stands for curvature: the Fisher, or the first that there is."""
    return next(iter(operators_of(datasets)), "fisher")
