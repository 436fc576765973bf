"""What goes with the loss of plasticity: every measure in every setting, and each measure over all settings beside it."""

import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plasticity.report.panels import OPERATORS, SMALL, finish, words
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import ARM

CATEGORY = "3 What goes with it"
TITLE = "every measure in every setting"
TABLES = ("associations", "consistency")
OUTCOME = "final_error_gap"
ROW, LABELS, FOREST = (
    0.2,
    1.6,
    1.5,
)  # inches: height of a row, widths of the measures' names and of the forest plot
CELL = (0.16, 0.9)  # least and largest width of a cell
REACH = 0.42  # of a cell's width: a correlation of 1
BEATEN = {
    "none": ("o", "white", "beats no null"),
    "task": ("o", "black", "the curve that all seeds share"),
    "shifted": ("^", "black", "shifted tasks"),
    "differenced": ("s", "black", "innovations"),
    "mismatched": ("D", "black", "mismatched seeds"),
}


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """A cell per measure and setting beside a forest plot over settings.

    Cells: colour and dot are ρ within runs, the bar its interval, the dot's shape the strongest null that it beats. Forest: estimate,
    interval, and the prediction interval for the next setting.
    """
    found = _explanations(tables["associations"], list(datasets))
    known = found.groupby("measure", sort=False)["estimate"].transform("count") > 0
    left_out, found = list(dict.fromkeys(found[~known]["measure"])), found[known]
    measures = sorted(
        dict.fromkeys(found["measure"]), key=lambda name: name.partition("_")[0] in OPERATORS
    )
    cell = float(np.clip((style.widths["page"] - LABELS - FOREST) / len(datasets), *CELL))
    size = (LABELS + cell * len(datasets) + FOREST, ROW * max(len(measures), 4) + 1.8)
    figure, (cells, forest) = plt.subplots(
        1, 2, figsize=size, width_ratios=[cell * len(datasets), FOREST], sharey=True
    )
    panels = {("cells", "all"): cells, ("forest", "all"): forest}
    if measures:
        _cells(cells, found, measures, list(datasets), style)
        consistency = tables["consistency"]
        chosen = consistency[
            (consistency["association"] == "within_run") & (consistency["outcome"] == OUTCOME)
        ]
        _forest(forest, chosen, measures, style)
        figure.colorbar(
            mpl.cm.ScalarMappable(Normalize(-1, 1), style.signed),
            ax=cells,
            orientation="horizontal",
            label="ρ within runs",
            aspect=40,
            fraction=0.03,
        )
        marks = [
            Line2D([], [], linestyle="", color="black", marker=m, markerfacecolor=c, label=label)
            for m, c, label in BEATEN.values()
        ]
        if left_out:
            said = textwrap.fill(
                f"constant, or measured too seldom, in every setting: {', '.join(map(words, left_out))}",
                int(18 * size[0]),
            )
            figure.supxlabel(said, fontsize=SMALL, color=style.quiet)
        figure.legend(
            handles=marks,
            loc="outside upper center",
            ncols=3 if size[0] > 5 else 2,
            title="strongest null that it beats",
            title_fontsize="small",
        )
    return finish(figure, panels, style, legend=False)


def _explanations(table: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """Each measure once in each setting: on the coming task's data where there is a choice, of the whole network or of the last layer."""
    keys = {"level": "within_run", "arm": ARM, "outcome": OUTCOME}
    table = table[
        (table[list(keys)] == pd.Series(keys)).all(axis=1) & table["setting"].isin(settings)
    ]
    order = pd.DataFrame(
        {"next": table["evaluation_point"] == "next", "whole": table["block"] == "all"},
        index=table.index,
    )
    return (
        table.assign(**order)
        .sort_values(["next", "whole"], kind="stable")
        .drop_duplicates(["setting", "measure"], keep="last")
        .sort_index()
    )


def _cells(
    axis: Axes, found: pd.DataFrame, measures: list[str], settings: list[str], style: Style
) -> None:
    """The heat map, with a small interval in each cell."""
    grid = found.pivot_table(
        index="measure", columns="setting", values="estimate", dropna=False, sort=False
    ).reindex(measures, columns=settings)
    axis.imshow(
        np.ma.masked_invalid(grid.to_numpy(float)),
        cmap=style.signed,
        vmin=-1,
        vmax=1,
        aspect="auto",
        alpha=0.55,
    )
    wide = len(settings) < 6
    for _, row in found.iterrows():
        x, y = settings.index(row["setting"]), measures.index(row["measure"])
        if np.isnan(row["estimate"]):
            why = str(row["note"]).rpartition("; ")[2] if wide else "–"
            axis.text(x, y, why, ha="center", va="center", fontsize=SMALL - 2, color=style.quiet)
            continue
        low, high = np.clip([row["low"], row["high"]], -1, 1) * REACH + x
        axis.plot([low, high], [y, y], color="black", linewidth=0.7)
        marker, inside, _ = BEATEN[str(row["strongest_null"]) or "none"]
        axis.plot(
            x + REACH * row["estimate"],
            y,
            marker=marker,
            color="black",
            markerfacecolor=inside,
            markersize=2.5,
            markeredgewidth=0.5,
        )
    axis.vlines(range(len(settings)), -0.5, len(measures) - 0.5, color="white", linewidth=0.4)
    axis.vlines(
        np.arange(len(settings) + 1) - 0.5, -0.5, len(measures) - 0.5, color="white", linewidth=3
    )
    axis.hlines(
        np.arange(len(measures) + 1) - 0.5, -0.5, len(settings) - 0.5, color="white", linewidth=1
    )
    axis.spines[:].set_visible(False)
    names = [textwrap.fill(name.replace("_", " "), 16 if wide else 40) for name in settings]
    axis.set_xticks(range(len(settings)), names, rotation=0 if wide else 90)
    axis.tick_params(axis="x", top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.set_yticks(range(len(measures)), [words(name) for name in measures])
    axis.set_ylim(len(measures) - 0.5, -0.5)
    axis.grid(visible=False)


def _forest(axis: Axes, consistency: pd.DataFrame, measures: list[str], style: Style) -> None:
    """Each measure over settings: estimate, interval, and in pale what to expect of the next setting."""
    for _, row in consistency[
        consistency["measure"].isin(measures) & consistency["estimate"].notna()
    ].iterrows():
        y = measures.index(row["measure"])
        axis.plot(
            [row["prediction_low"], row["prediction_high"]],
            [y, y],
            color=style.quiet,
            linewidth=3,
            alpha=0.3,
            solid_capstyle="butt",
        )
        axis.plot([row["low"], row["high"]], [y, y], color="black", linewidth=0.9)
        axis.plot(row["estimate"], y, "o", color="black")
        claimed = (
            ""
            if row["claim"] == 0
            else f"{round(row['as_claimed'] * row['settings'])}/{row['settings']}"
        )
        axis.text(1.05, y, claimed, fontsize=SMALL, va="center", color=style.quiet)
    axis.axvline(0, color="black", linewidth=0.6)
    axis.set_xlim(-1, 1)
    axis.set_xlabel("ρ over settings")
    axis.set_title("all settings (right: how many\nhave the claimed sign)")
    axis.tick_params(labelleft=False)
