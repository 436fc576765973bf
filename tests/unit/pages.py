"""What the generators of pages about results share: published tables, and text."""

import functools
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from plasticity.config.quantities import split_operator
from plasticity.statistics.table_files import read_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NO_TEST = "–"
COLUMNS = 100  # of a line of text


# Access to the tables


@functools.cache
def table(name: str, study: str) -> pd.DataFrame:
    """Read a table of a published study."""
    return read_table(next((DOCS / study).glob(f"*/{name}.csv*")))


def select_rows(name: str, study: str, **values: object) -> pd.DataFrame:
    """Return the rows of a table that have these values."""
    rows = table(name, study)
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def select_row(name: str, study: str, **values: object) -> pd.Series:
    """Return the only row of a table that has these values."""
    rows = select_rows(name, study, **values)
    assert len(rows) == 1, (study, name, values, len(rows))
    return rows.iloc[0]


def rivals_of_curvature(study: str) -> pd.DataFrame:
    """Return the rows of the table of explanations that are about measures without curvature."""
    rows = table("explanations", study)
    return rows[[not split_operator(str(measure))[0] for measure in rows["measure"]]]


def turned(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows about a rank and an error with the other sign: positive if ordered as claimed."""
    return rows.assign(estimate=-rows["estimate"], low=-rows["high"], high=-rows["low"])


def taus_of_copies(study: str, rank: str, **values: object) -> pd.DataFrame:
    """Return the rows about τ of a rank and an error over copies, one or more per setting.

    τ is positive if a larger rank means a smaller error, as claimed.
    """
    rows = select_rows("interventions", study, measure=rank, **values)
    return turned(rows[rows["setting"] != "all"])


def published_run(study: str) -> dict[str, Any]:
    """Return versions, cores and disk use of a published run."""
    record: dict[str, Any] = json.loads((DOCS / study / "made.json").read_text())
    return record


# Text


def format_number(value: float, digits: int = 2) -> str:
    """Format a number with a true minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def format_interval(row: pd.Series, name: str = "estimate", digits: int = 2) -> str:
    """Format an estimate, with its interval in brackets if it has one; a dash if it has none."""
    if pd.isna(row[name]):
        return NO_TEST
    prefix = "" if name in ("estimate", "mean") else f"{name}_"
    value, low, high = (
        format_number(row[key], digits) for key in (name, f"{prefix}low", f"{prefix}high")
    )
    return value if pd.isna(row[f"{prefix}low"]) else f"{value} [{low}, {high}]"


def format_range(values: Iterable[float], digits: int = 2) -> str:
    """Format the smallest and the largest of some values, or one number if they look equal."""
    values = list(values)
    low, high = format_number(min(values), digits), format_number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def format_percent(share: float) -> str:
    """Format a share in percent with at most two significant digits."""
    return f"{100 * share:.2g} %" if share < 1 else "100 %"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table in which a number stays on one line with its interval."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in [head, ["---"] * len(head), *rows]]
    breakable = r" (?=±|\[[−\d])|(?<=±) |(?<=\d,) (?=[−\d])"
    return re.sub(breakable, "\N{NO-BREAK SPACE}", "\n".join(lines))


def wrap_text(text: str) -> str:
    """Wrap paragraphs and lists; leave tables, titles and pictures as they are."""
    return "\n\n".join(_wrap_paragraph(part) for part in text.strip().split("\n\n")) + "\n"


def _wrap_paragraph(text: str) -> str:
    if text.startswith(("|", "#", "<", "!")):
        return text
    if not text.startswith("- "):
        return _fill(text)
    items = re.split(r"\n(?=- )", text)
    return "\n".join(_fill(item, indent="  ") for item in items)


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, COLUMNS, break_on_hyphens=False, break_long_words=False, subsequent_indent=indent
    )
