"""How figures look: what the style file says, and how a figure is written so that the same figure is the same bytes."""

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

from plasticity.errors import StudyError
from plasticity.storage import netcdf

mpl.use("Agg")

CANVASES = {".svg": FigureCanvasSVG, ".pdf": FigureCanvasPdf, ".png": FigureCanvasAgg}
Look = tuple[str, str]  # a colour and a line


@dataclass(frozen=True)
class Style:
    """The style file.

    Attributes:
        widths: of a column and of the page, in inches.
        panels: beside each other at most.
        matplotlib: its own settings.
        band: opacity.
        methods: look of each.
        others: looks for methods without one.
        operators: look of each.
        evaluation_points: look of each.
        stages: look of early and of late tasks.
        sequence: colour map of what has an order.
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
    sequence: str
    signed: str
    warning: str
    quiet: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """The style that a file describes.

        Raises:
            StudyError: no YAML, a key too many or too few, a setting that matplotlib does not have.
        """
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
            style = cls(**said)
            with style.used():
                return style
        except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
            known = ", ".join(field.name for field in fields(cls))
            raise StudyError(
                f"{path} is no style ({error}): it has the keys {known}, as the tracked file does"
            ) from error

    def used(self) -> AbstractContextManager[None]:
        """Matplotlib's settings, for as long as a figure is drawn."""
        return plt.style.context(dict(self.matplotlib))

    def width(self, panels: int) -> float:
        """Of a figure with so many panels beside each other, in inches: at least a column's, at most the page's."""
        column, page = self.widths["column"], self.widths["page"]
        return max(column, page * min(1.0, (panels + 0.4) / (self.panels + 0.4)))

    def of_arm(self, arm: str) -> dict[str, Any]:
        """Colour and line of an arm: those of its method, the same in every figure."""
        method = method_of(arm)
        return look(
            self.methods.get(method) or self.others[sum(method.encode()) % len(self.others)]
        )


def method_of(arm: str) -> str:
    """The method of an arm: ``l2(strength=0.001)`` → ``l2``."""
    return arm.partition("(")[0]


def look(chosen: Look) -> dict[str, Any]:
    """A look as matplotlib's options of a line."""
    return {"color": chosen[0], "linestyle": chosen[1]}


def lay_out(figure: Figure) -> None:
    """Find every panel its place, where it stays in whatever format the figure is written."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
    figure.set_layout_engine("none")


def save(figure: Figure, paths: Sequence[Path], stamp: Mapping[str, str]) -> None:
    """Write a figure in the formats that the paths end in: the same figure, the same bytes."""
    said = json.dumps(
        {key: json.loads(value) if key != "source" else value for key, value in stamp.items()},
        sort_keys=True,
    )
    dateless: dict[str, dict[str, str | None]] = {
        ".svg": {"Date": None, "Description": said},
        ".pdf": {"CreationDate": None, "Subject": said},
        ".png": {"Description": said},
    }
    lay_out(figure)
    dpi = figure.dpi
    for path in paths:
        figure.dpi = dpi  # each format leaves its own
        # not savefig, which draws everything twice
        with netcdf.atomic_write(path) as part:
            getattr(CANVASES[path.suffix](figure), f"print_{path.suffix[1:]}")(
                part, metadata=dateless[path.suffix]
            )
    plt.close(figure)
