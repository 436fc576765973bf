"""Prepare a table for readers."""

from collections.abc import Mapping

import pandas as pd


def for_readers(name: str, table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame | None:
    """Return the table with headings in words; None if it has no rows.

    Args:
        name: of the table.
        table: as read from its file.
        titles: of settings, by name.
    """
    if table.empty:
        return None
    return table.rename(columns=lambda column: str(column).replace("_", " "))
