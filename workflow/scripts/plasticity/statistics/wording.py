"""Words that several sentences share: names, intervals and tests."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

OUTCOME = "final_error_gap"  # the outcome of most sentences


def select(table: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Select the rows whose columns have the given values."""
    return table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]


def words(name: str) -> str:
    """Write the name of a measure or an outcome as words."""
    return "gap to a fresh network" if name == OUTCOME else name.replace("_", " ")


def interval_words(row: pd.Series) -> str:
    """Write the interval of a row as words."""
    if not np.isfinite(row["low"]):
        return "no interval"
    return f"95 % interval {row['low']:.2f} to {row['high']:.2f}"


def p_words(row: pd.Series) -> str:
    """Write the adjusted p of a row as words."""
    p = row["p_adjusted"]
    return f"adjusted p = {p:.3g}" if np.isfinite(p) else "not tested"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 setting``, ``2 settings``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def does_not(count: int) -> str:
    """Write a count with its verb: ``1 does not``, ``2 do not``."""
    return f"{count} {'does' if count == 1 else 'do'} not"


def range_words(values: pd.Series, digits: int = 2) -> str:
    """Write the smallest and the largest of some values, or the only one: ``0.12 to 0.31``."""
    ends = dict.fromkeys(f"{value:.{digits}f}" for value in (values.min(), values.max()))
    return " to ".join(ends)
