"""Split figures over pages, so that none is taller than a page, and name the files of each page.

Snakemake asks for the names before the first job, so this module imports no matplotlib.
"""

from collections.abc import Sequence

from plasticity.config import registry


def split(figure: str, settings: Sequence[str]) -> list[list[str]]:
    """Split the settings that a figure shows over its pages.

    Args:
        figure: its name. Its file may declare `SETTINGS_PER_PAGE`; otherwise it has one page.
        settings: all that it shows, in their order.

    Returns:
        The settings of each page. There is always a first page.
    """
    per_page = registry.constant("figures", figure, "SETTINGS_PER_PAGE") or max(len(settings), 1)
    first_positions = range(0, max(len(settings), 1), per_page)
    return [list(settings[first : first + per_page]) for first in first_positions]


def stems(figure: str, settings: Sequence[str]) -> list[str]:
    """Name the files of a figure, without their suffixes: ``scatter``, ``scatter_2`` and so on.

    Args:
        figure: its name.
        settings: all that it shows.

    Returns:
        One name per page.
    """
    count = len(split(figure, settings))
    return [figure, *(f"{figure}_{page}" for page in range(2, count + 1))]
