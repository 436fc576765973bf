"""Define how figures look, and write them so that the same figure gives the same bytes."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import matplotlib as mpl
import matplotlib.pyplot as plt
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from plasticity.atomic import atomic_write
from plasticity.config.models import method_of
from plasticity.errors import StudyError

mpl.use("Agg")

CANVASES = {".svg": FigureCanvasSVG, ".pdf": FigureCanvasPdf, ".png": FigureCanvasAgg}
Look = tuple[str, str]  # a colour and a line style


@dataclass(frozen=True)
class Style:
    """The style file.

    Attributes:
        widths: of a column and of a page, in inches.
        panels: largest number of panels in a row.
        matplotlib: settings of matplotlib, by their names.
        band: opacity of intervals.
        methods: colour and line style of each method.
        others: colours and line styles for methods and operators that have none of their own.
        operators: colour and line style of each operator.
        evaluation_points: colour and line style of each evaluation point.
        stages: colour and line style of early and of late tasks.
        families: colour of each family of treatments.
        sequence: colour map for ordered values.
        signed: colour map from −1 to 1.
        warning: colour of what a reader must not miss.
        quiet: colour of remarks.
    """

    widths: Mapping[str, float]
    panels: int
    matplotlib: Mapping[str, Any]
    band: float
    methods: Mapping[str, Look]
    others: Sequence[Look]
    operators: Mapping[str, Look]
    evaluation_points: Mapping[str, Look]
    stages: Mapping[str, Look]
    families: Mapping[str, str]
    sequence: str
    signed: str
    warning: str
    quiet: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a style file.

        Raises:
            StudyError: the file is not YAML, has missing or unknown keys, or names a setting that
                matplotlib does not have.
        """
        try:
            style = cls(**yaml.safe_load(path.read_text(encoding="utf-8")))
            with style.applied():
                return style
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            keys = ", ".join(field.name for field in fields(cls))
            raise StudyError(
                f"{path} is not a valid style file: {error}. Its keys must be {keys}. Compare it"
                " with workflow/style.yaml in the repository."
            ) from error

    def applied(self) -> AbstractContextManager[None]:
        """Return a context manager in which matplotlib has this style's settings."""
        return plt.style.context(dict(self.matplotlib))

    def width(self, panels: int) -> float:
        """Return the width of a figure with this many panels in a row.

        Returns:
            Inches, at least the width of a column and at most that of a page.
        """
        column, page = self.widths["column"], self.widths["page"]
        return max(column, page * min(1.0, (panels + 0.4) / (self.panels + 0.4)))

    def of_arm(self, arm: str) -> dict[str, Any]:
        """Return colour and line style of an arm, as options of a line; its method decides both."""
        method = method_of(arm)
        return as_line_options(self.methods.get(method) or self._fallback(method))

    def of_operator(self, operator: str) -> dict[str, Any]:
        """Return colour and line style of an operator, as options of a line."""
        return as_line_options(self.operators.get(operator) or self._fallback(operator))

    def _fallback(self, name: str) -> Look:
        """Choose a look by the letters of a name, so that the name always has the same one."""
        return self.others[sum(name.encode()) % len(self.others)]


def as_line_options(colour_and_line: Look) -> dict[str, Any]:
    """Return a colour and a line style as options of a line."""
    colour, line_style = colour_and_line
    return {"color": colour, "linestyle": line_style}


def lay_out(figure: Figure) -> None:
    """Compute the layout once and fix it, so that it is the same in every file format."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
    figure.set_layout_engine("none")


def save(figure: Figure, paths: Sequence[Path], stamp: Mapping[str, str]) -> None:
    """Write a figure without dates, so that the same figure gives the same bytes.

    Args:
        figure: it is closed afterwards.
        paths: their suffixes (.svg, .pdf or .png) say the formats.
        stamp: what the figure was made with: JSON strings by key, and ``source`` as plain text.
    """
    provenance = {
        key: value if key == "source" else json.loads(value) for key, value in stamp.items()
    }
    description = json.dumps(provenance, sort_keys=True)
    metadata: dict[str, dict[str, str | None]] = {
        ".svg": {"Date": None, "Description": description},
        ".pdf": {"CreationDate": None, "Subject": description},
        ".png": {"Description": description},
    }
    lay_out(figure)
    dpi = figure.dpi
    for path in paths:
        figure.dpi = dpi  # each canvas changes it
        canvas = CANVASES[path.suffix](figure)
        # figure.savefig would draw everything twice
        print_figure = getattr(canvas, f"print_{path.suffix.removeprefix('.')}")
        with atomic_write(path) as part:
            print_figure(part, metadata=metadata[path.suffix])
    plt.close(figure)
