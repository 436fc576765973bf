"""What methods keep: error, gap to a fresh network and curvature rank over tasks, at most six arms to a row of panels."""

from collections.abc import Mapping
from itertools import groupby

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.report.panels import (
    REFERENCES,
    curve,
    finish,
    label_ends,
    main_operator,
    series,
    short,
    titles,
    words,
)
from plasticity.report.style import Style, method_of

CATEGORY = "4 Methods"
TITLE = "what methods keep"
TABLES = ()
ARMS = 6  # beside the references, in a panel
HEIGHT = 1.25


def draw(
    datasets: Mapping[str, xr.Dataset], tables: Mapping[str, pd.DataFrame], style: Style
) -> Figure:
    """Rows of panels per setting, as many as its arms need; settings without an intervention are left out, if another has one."""
    measure = f"{main_operator(datasets)}_effective_rank"
    quantities = {
        "final_error": "final error",
        "final_error_gap": "gap to a fresh network",
        measure: words(measure),
    }
    lots = [(setting, arms) for setting, data in datasets.items() for arms in _lots(data)]
    lots = [lot for lot in lots if lot[1]] or [(setting, []) for setting in datasets]
    size = (style.widths["page"], len(lots) * HEIGHT + 0.4)
    figure, axes = plt.subplots(len(lots), len(quantities), figsize=size, squeeze=False)
    for axis, title in zip(axes[0], quantities.values(), strict=True):
        axis.set_title(title)
    panels = {}
    for number, (setting, arms) in enumerate(lots):
        for axis, name in zip(axes[number], quantities, strict=True):
            panels[name, str(number)] = axis
            if number and lots[number - 1][0] == setting:
                axis.sharey(panels[name, str(number - 1)])
            for arm in (*REFERENCES, *arms):
                same = [other for other in arms if method_of(other) == method_of(arm)]
                width = 0.8 + 0.5 * min(same.index(arm), 3) if len(same) > 1 else 1.2
                values = series(datasets[setting], name, arm)
                curve(axis, values, style, short(arm), linewidth=width, **style.of_arm(arm))
        label_ends(axes[number, -1] if axes[number, -1].lines else axes[number, 0], HEIGHT)
        axes[number, 0].set_ylabel(titles([setting])[setting])
    for axis in axes[-1]:
        axis.set_xlabel("task")
    return finish(figure, panels, style, legend=False)


def _lots(data: xr.Dataset) -> list[list[str]]:
    """The arms of a setting in lots of a few; those of a method stay together, where a lot has room for them."""
    arms = [str(arm) for arm in data.arm.values if arm not in REFERENCES]
    lots: list[list[str]] = []
    for _, group in groupby(arms, method_of):
        of_method = list(group)
        for lot in (of_method[first : first + ARMS] for first in range(0, len(of_method), ARMS)):
            if not lots or len(lots[-1]) + len(lot) > ARMS:
                lots.append([])
            lots[-1] += lot
    return lots
