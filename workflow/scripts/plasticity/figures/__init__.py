"""Figures, one file each: `draw(datasets, tables)` gives a matplotlib figure. Here is what they share; torch is never imported.

A new figure is one file here, and one caption in workflow/report.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity import contracts
from plasticity.settings import YARDSTICK
from plasticity.statistics.resampling import student

mpl.use("Agg")

# Okabe & Ito's colours, safe for colour-blind readers; dashes tell them apart in grey
COLOURS = {"none": "#000000", YARDSTICK: "#8c8c8c", "l2": "#e69f00", "l2_init": "#0072b2", "wasserstein": "#d55e00"}
SPARE = ("#009e73", "#cc79a7", "#56b4e9", "#7a5195", "#a05a2c")
DASHES = {"none": "-", YARDSTICK: ":", "l2": "-.", "l2_init": "--", "wasserstein": (0, (5, 1, 1, 1, 1, 1))}
# name and colour of each operator
OPERATORS = {"fisher": ("Fisher", "#0072b2"), "ggn": ("GGN", "#e69f00"), "hessian": ("Hessian", "#d55e00"), "ntk": ("NTK", "#009e73")}
PAGE = 7.0  # inches
LABELS = {
    "final_error": "final error",
    "fisher_effective_rank": "effective rank\nof the Fisher",
    "fisher_top_eigenvalue": "top eigenvalue\nof the Fisher",
    "fisher_trace": "trace\nof the Fisher",
    "feature_rank": "feature rank\n(last hidden layer)",
    "dormant_fraction": "dormant units\n(share)",
    "dead_fraction": "dead units\n(share)",
    "weight_norm": "weight norm",
    "update_norm": "update norm",
}


def style(path: Path) -> AbstractContextManager[None]:
    """The style file, for as long as a figure is drawn."""
    return plt.style.context(path)


def save(figure: Figure, paths: Sequence[Path], stamp: Mapping[str, str]) -> None:
    """Write a figure in the formats that the paths end in: the same figure, the same bytes."""
    dateless: dict[str, dict[str, str | None]] = {
        ".svg": {"Date": None, "Description": stamp["code"]},
        ".pdf": {"CreationDate": None, "Subject": stamp["code"]},
        ".png": {"Description": stamp["code"]},
    }
    figure.draw_without_rendering()  # ticks change with the size of their axes: the layout is right in the second pass
    for path in paths:
        with contracts.whole(path) as part:
            figure.savefig(part, format=path.suffix[1:], metadata=dateless[path.suffix])
    plt.close(figure)


def panels(
    rows: int, columns: int, height: float, sharey: Literal["row", "col"] = "row", sharex: Literal["none", "col"] = "col"
) -> tuple[Figure, np.ndarray]:
    """A grid of axes as wide as a page (wider with more than four columns), each row `height` inches high."""
    width = PAGE * max(1.0, columns / 4)
    figure, axes = plt.subplots(rows, columns, figsize=(width, rows * height + 0.5), squeeze=False, sharex=sharex, sharey=sharey)
    return figure, axes


def over_tasks(axes: np.ndarray, datasets: Mapping[str, xr.Dataset], rows: Sequence[str]) -> None:
    """The arm without an intervention beside a fresh network per task: a row per outcome or measure, a column per setting."""
    for column, (setting, data) in zip(axes.T, datasets.items(), strict=True):
        column[0].set_title(title(setting))
        for axis, name in zip(column, rows, strict=True):
            for arm, label in (("none", "no intervention"), (YARDSTICK, "fresh network per task")):
                curve(axis, series(data, name, arm), label, arm)
            if not axis.lines:
                axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
    for axis, name in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(LABELS[name])


def series(data: xr.Dataset, name: str, arm: str, moment: str = "new", block: str | None = None) -> xr.DataArray:
    """One arm's values of an outcome or a measure, dims ``(seed, task, …)``; all NaN where the study did not measure it.

    Where no block is named, that of the whole network; of the feature rank, which it does not have, that of the last hidden layer.
    """
    missing = data["fresh_final_error"] * np.nan
    if name not in data or arm not in data.arm or moment not in data.moment:
        return missing
    values = data[name].sel(arm=arm)
    if "moment" in values.dims:
        values = values.sel(moment=moment)
    if "block" in values.dims:
        values = values.sel(block=block) if block else values.dropna("block", how="all")
        if "block" in values.dims:
            values = values.isel(block=-1) if values.sizes["block"] else missing
    return values.transpose("seed", "task", ...)


def curve(axis: Axes, values: xr.DataArray, label: str, method: str, **options: Any) -> None:
    """Mean over seeds, with a band that is the 95 % interval of that mean.

    Seeds with a gap where others have none (a diverged member) and tasks that were not measured are left out.
    """
    values = values.dropna("task", how="all").dropna("seed", how="any")
    if not values.size:
        return
    look = {"color": colour(method), "linestyle": DASHES.get(method, "-"), "label": label} | options
    axis.plot(values.task, values.mean("seed"), **look)
    low, high = student(values.values.T)
    axis.fill_between(values.task, low, high, color=look["color"], alpha=0.2, linewidth=0)


def legend(figure: Figure, axes: np.ndarray) -> None:
    """One legend for all panels, above them."""
    entries = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=min(len(entries), 4))


def method_of(arm: str) -> str:
    """The method of an arm: ``l2(strength=0.001)`` → ``l2``."""
    return arm.partition("(")[0]


def colour(method: str) -> str:
    """A method's colour, the same in every figure."""
    return COLOURS.get(method, SPARE[sum(method.encode()) % len(SPARE)])


def title(setting: str) -> str:
    """A setting's name as a heading: the dataset and the change in one line, the network in the next."""
    words = setting.split("_")
    return f"{' '.join(words[:2])}\n{' '.join(words[2:])}".strip()
