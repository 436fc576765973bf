"""Draw all pages of a figure."""

import json
from collections.abc import Iterator, Mapping

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config import registry
from plasticity.report import pages, panels
from plasticity.report.style import Style


def draw_pages(
    name: str,
    datasets: Mapping[str, xr.Dataset],
    tables: Mapping[str, pd.DataFrame],
    style: Style,
) -> Iterator[Figure]:
    """Draw the pages of a figure one after the other.

    Args:
        name: of the figure.
        datasets: of all settings that the figure shows.
        tables: that the figure shows.
        style: the style of figures.

    Yields:
        One figure per page.
    """
    plugin = registry.load("figures", name)
    titled = _with_titles(datasets)
    for settings in pages.split(name, list(datasets)):
        yield plugin.draw({setting: titled[setting] for setting in settings}, tables, style)


def _with_titles(datasets: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Store the title of each setting, so that it does not depend on the others of its page."""
    titled = {}
    for name, title in panels.setting_titles(datasets).items():
        stored = json.loads(datasets[name].attrs.get("settings", "{}"))
        titled[name] = datasets[name].assign_attrs(settings=json.dumps(stored | {"title": title}))
    return titled
