"""Choose what figures show of treated copies: the arm, the block, the task, and the looks."""

from collections.abc import Collection
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from plasticity.config.models import BASELINE, UNTREATED
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import EXPLAINED_ARM

FAMILY_LABELS = {
    "control": "other control",
    "restoring": "restoring treatment",
    "harmful": "harmful treatment",
    "preserving": "keeps the function",
}
FAMILY_MARKERS = {"control": "s", "restoring": "o", "harmful": "v", "preserving": "D"}
CONTROL_MARKERS = {UNTREATED: "X", BASELINE: "*"}
CONTROL_LABELS = {UNTREATED: "no treatment", BASELINE: "fresh network"}
POINT_SIZES = {"X": 5.5, "*": 7.5}  # points; those of other markers are smaller
POINT_SIZE = 3.5


def why_nothing(table: pd.DataFrame) -> str:
    """Say why a figure of copies shows nothing, for a table of treated copies."""
    if table.empty:
        return "No treated copy of a checkpoint was measured."
    return "No treated copy of a run without an intervention was measured."


def of_explained_arm(table: pd.DataFrame, settings: Collection[str]) -> pd.DataFrame:
    """Select the rows about checkpoints of these settings that no method trained."""
    return table[(table["arm"] == EXPLAINED_ARM) & table["setting"].isin(settings)]


def of_treatments(table: pd.DataFrame, settings: Collection[str]) -> pd.DataFrame:
    """Select the same rows of a table that has no mean over tasks, with tasks as numbers."""
    return of_explained_arm(table, settings).astype({"task": int})


def of_quantity(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Select the rows of the table of treatments that have a value of an outcome or a measure."""
    return table[(table["quantity"] == quantity) & table["mean"].notna()]


def at_telling_task(table: pd.DataFrame) -> pd.DataFrame:
    """Select one treated task per row's setting and family.

    A harmful treatment needs a network that still learns, so it is shown at the first treated task.
    All others are shown at the last.
    """
    tasks = table.groupby("setting")["task"]
    is_harmful = table["treatment_family"] == "harmful"
    telling_task = tasks.transform("max").where(~is_harmful, tasks.transform("min"))
    return table[table["task"] == telling_task]


def marker_of(treatment: str, family: str) -> str:
    """Choose the marker of a copy: by its treatment for two controls, else by its family.

    Args:
        treatment: its name, with its strength.
        family: of the treatment.
    """
    return CONTROL_MARKERS.get(treatment) or FAMILY_MARKERS[family]


def point_look(marker: str, colour: str, is_filled: bool) -> dict[str, Any]:
    """Return the look of a point, as options of a line without a line."""
    return {
        "linestyle": "",
        "marker": marker,
        "color": colour,
        "markerfacecolor": colour if is_filled else "none",
        "markersize": POINT_SIZES.get(marker, POINT_SIZE),
        "markeredgewidth": 0.6,
    }


def legend_of_families(families: Collection[str], style: Style) -> dict[str, Line2D]:
    """Explain colours and markers of families of treatments that occur."""
    return {
        label: Line2D(
            [], [], **point_look(FAMILY_MARKERS[family], style.families[family], is_filled=True)
        )
        for family, label in FAMILY_LABELS.items()
        if family in families
    }


def legend_of_controls(style: Style) -> dict[str, Line2D]:
    """Explain the markers of the two controls that have their own."""
    return {
        CONTROL_LABELS[treatment]: Line2D(
            [], [], **point_look(marker, style.families["control"], is_filled=True)
        )
        for treatment, marker in CONTROL_MARKERS.items()
    }
