"""Tables of a benchmark as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timing.turns import Spread

# of a table; a spread is a list after it was saved
Cell = str | float | Spread | Sequence[float] | None


@dataclass(frozen=True)
class Table:
    """A table of a benchmark.

    Attributes:
        title: what is measured.
        names: head of the first column, which names the rows.
        columns: digits after the decimal point by the heads of the other columns. Times come
            first, ratios last.
        rows: name of the row, then its cells. None is an empty cell.
    """

    title: str
    names: str
    columns: Mapping[str, int]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        """Format the table: names aligned left, numbers aligned right."""
        lines = [[self.names, *self.columns]]
        for name, *cells in self.rows:
            pairs = zip(cells, self.columns.values(), strict=True)
            lines.append([str(name), *(format_cell(cell, digits) for cell, digits in pairs)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join([self.title, *(_align(line, widths) for line in lines)])


def _align(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        f"{cell:>{width}}" if index else f"{cell:{width}}"
        for index, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def format_cell(cell: Cell, digits: int) -> str:
    """Format a number, a median with its quartiles in brackets, or a text."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int | float):
        return f"{cell:.{digits}f}"
    median, low, high = (f"{value:.{digits}f}" for value in cell)
    return f"{median} ({low}–{high})"


def text(content: Mapping[str, Any]) -> str:
    """Format saved results as they are shown in a page."""
    loads = f"load {content['load_before']} before and {content['load_after']} after"
    lines = [f"{content['processor']}, {content['cores']} cores, {loads}", content["setup"]]
    if content["is_quick"]:
        lines.append("a short run (--quick): the numbers are rough")
    tables = [Table(**table).text() for table in content["tables"]]
    return "\n\n".join(["\n".join(lines), *tables])
