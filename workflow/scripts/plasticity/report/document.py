"""Write report.html: one file with sentences, figures, captions and tables, for reading.

It loads nothing from the network. Tables are plain HTML, which prints and needs no script. The
bundle of DataTables that itables ships sorts and searches a table as soon as a reader opens it.
"""

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import itables
import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from plasticity.config import registry
from plasticity.config.models import Statistics
from plasticity.config.titles import setting_titles
from plasticity.report import captions, contents
from plasticity.report.reader_tables import for_readers

FIRST_PAGE_SENTENCES = 5
MAX_SVG_CHARACTERS = 400_000  # a larger figure is shown as PNG, because browsers draw it slowly
MAX_PICTURE_CHARACTERS = 5_500_000  # of all figures; the largest are shown as PNG until they fit
COLOURS_OF_PNG = 256  # halves the size of a figure, and no reader sees a difference
MAX_ROWS = 1000  # of a table on the page; its file has all
LONG_TABLE = 25  # rows; a longer table has pages, and is not printed
WIDE_TABLE = 14  # columns; a wider table does not fit on paper
SENTENCE = 100  # characters of a cell that holds a sentence
LONG_TEXT = 24  # characters of a cell
SIGNIFICANT_DIGITS = 4
POINTS_PER_PIXEL = 0.75
# characters that an address in an attribute may hold as they are
SAFE_IN_ADDRESS = " !$'()*+,-./:;=?@_~|[]{}<>"
MAGNIFICATION = 1.5  # a figure's text of 7 points becomes as large as that of the page
# a number, alone or with its interval
ESTIMATE = re.compile(r"([-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?: \[.*\])?$")
FORMATS = (".svg", ".pdf", ".png")


class Link(NamedTuple):
    """A link, with a text and an address relative to the report."""

    text: str
    address: str


class Sentence(NamedTuple):
    """A result in words, with links to the figure and the table that show it."""

    text: str
    links: list[Link]


class Picture(NamedTuple):
    """A page of a figure: address with all its data, width and height in pixels."""

    source: Markup
    width: int
    height: int


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: its heading.
        attribute: class of its cells: n (numbers), e (estimates with intervals), w (texts that
            wrap), s (sentences); empty for short texts.
        is_estimate: whether its cells begin with a number by which they are sorted.
    """

    name: str
    attribute: Markup
    is_estimate: bool = False


class Cell(NamedTuple):
    """A cell of a table: its text, and its attributes for stylesheet and sorting."""

    text: str
    attribute: Markup


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: of its file.
        number: counted through the report, from 1.
        title: its heading.
        category: decides its section.
        pages: pictures, in their order.
        caption: as HTML.
        files: links to its files.
        data: links to what it is drawn from.
        sentences: results about it.
    """

    name: str
    number: int
    title: str
    category: str
    pages: list[Picture]
    caption: Markup
    files: list[Link]
    data: list[Link]
    sentences: list[Sentence]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its file.
        title: its heading.
        caption: as HTML.
        columns: those of the file that readers need.
        rows: of cells.
        row_count: number of rows in the file.
        is_open: whether it is unfolded at first.
        file: link to it.
        sentences: results about it.
    """

    name: str
    title: str
    caption: Markup
    columns: list[Column]
    rows: list[list[Cell]]
    row_count: int
    is_open: bool
    file: Link
    sentences: list[Sentence]

    @property
    def is_long(self) -> bool:
        """Whether it has pages on the screen."""
        return len(self.rows) > LONG_TABLE

    @property
    def is_printed(self) -> bool:
        """Whether it fits on paper."""
        return not self.is_long and len(self.columns) <= WIDE_TABLE


@dataclass(frozen=True)
class Chapter:
    """A section of the report with its figures and tables.

    Attributes:
        anchor: its address on the page.
        title: its heading.
        lead: what it shows.
        figures: in their order.
        tables: those with rows.
        empty: titles of the tables without rows.
        is_absent: whether the study has nothing that belongs here.
    """

    anchor: str
    title: str
    lead: str
    figures: list[Figure]
    tables: list[Table]
    empty: list[str]
    is_absent: bool


@dataclass(frozen=True)
class Results:
    """What the report is written from.

    Attributes:
        config: what captions read of the config of the study.
        figures: files of all figures and formats.
        tables: those of `contents.TABLES` by name, as `read_table` reads them.
        other_tables: names of the tables that are too long for the page.
        captions: files ``figure_{name}.rst`` and ``table_{name}.rst``.
        drawn: settings that a figure shows, by its name.
        versions: software that trained, tested and drew, in one sentence.
    """

    config: Mapping[str, Any]
    figures: Sequence[Path]
    tables: Mapping[str, pd.DataFrame]
    other_tables: Sequence[str]
    captions: Sequence[Path]
    drawn: Mapping[str, Sequence[str]]
    versions: str


def document(results: Results, template: str, stylesheet: str) -> str:
    """Write the report as HTML; equal results give equal bytes.

    Args:
        results: figures, tables and captions of a study.
        template: Jinja template of the page.
        stylesheet: CSS.
    """
    report = _Report(results)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    bundle = Path(itables.options.dt_bundle)
    ranked = report.ranked_sentences()
    text: str = environment.from_string(template).render(
        study=results.config["study"],
        question=contents.QUESTION,
        facts=_facts(results.config),
        sentences=ranked[:FIRST_PAGE_SENTENCES],
        more_sentences=ranked[FIRST_PAGE_SENTENCES:],
        chapters=report.chapters(),
        budget=captions.budget(results.config),
        seeds=results.config["seeds"],
        statistics=Statistics.of(results.config.get("statistics", {})),
        has_hypotheses=not results.tables["hypotheses"].empty,
        other_tables=[Link(f"{name}.csv", f"tables/{name}.csv") for name in results.other_tables],
        versions=results.versions,
        stylesheet=Markup(stylesheet),
        table_style=Markup(_for_style(bundle.with_suffix(".css").read_text("utf-8"))),
        table_script=Markup(_for_script(bundle.read_text("utf-8"))),
    )
    return text


class _Report:
    """Results with links between sentences, figures and tables."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._captions = {path.stem: path for path in results.captions}
        # the page lists sentences next to a caption, so captions quote the budget and bands only
        self._config = {
            **results.config,
            "quoted": captions.quoted(results.config, captions.NO_STATEMENTS),
        }
        settings = results.config["settings"]
        chosen = {name: own["title"] for name, own in settings.items() if "title" in own}
        self._titles = setting_titles(settings, chosen)
        self._pages = figure_pages(results.figures)
        self._numbers = self._number_figures()
        shown = [page for name in self._numbers for page in self._pages[name]]
        self._pictures = pictures(shown)

    def _number_figures(self) -> dict[str, int]:
        """Count the figures that the page shows, in its order."""
        shown = [
            name
            for section in contents.SECTIONS
            if not self._is_absent(section)
            for name in self._figures_of(section)
        ]
        return {name: number for number, name in enumerate(shown, start=1)}

    def _is_absent(self, section: contents.Section) -> bool:
        """Tell whether the study has nothing that belongs to a section."""
        needed = self._results.tables.get(section.needs)
        return bool(section.needs) and (needed is None or needed.empty)

    def _figures_of(self, section: contents.Section) -> list[str]:
        """List the figures of a section, by category and in the order in which they are read."""
        known = {category for other in contents.SECTIONS for category in other.categories}
        found = []
        for name in self._pages:
            category = registry.constant("figures", name, "CATEGORY")
            if category in section.categories:
                position = section.categories.index(category)
            elif category not in known and section.anchor == contents.OTHER_FIGURES:
                position = len(section.categories)
            else:
                continue
            found.append((position, _index(contents.FIGURE_ORDER, name), name))
        return [name for _, _, name in sorted(found)]

    def chapters(self) -> list[Chapter]:
        """Collect the figures and tables of each section."""
        chapters = []
        for section in contents.SECTIONS:
            is_absent = self._is_absent(section)
            names = [] if is_absent else self._figures_of(section)
            tables = {} if is_absent else self._tables_of(section)
            chapters.append(
                Chapter(
                    anchor=section.anchor,
                    title=section.title,
                    lead=section.lead,
                    figures=[self._figure(name) for name in names],
                    tables=[table for table in tables.values() if table is not None],
                    empty=[section.tables[name] for name, table in tables.items() if table is None],
                    is_absent=is_absent,
                )
            )
        return chapters

    def _tables_of(self, section: contents.Section) -> dict[str, Table | None]:
        """Return the tables of a section by name; None for a table without rows."""
        return {
            name: self._table(name, title)
            for name, title in section.tables.items()
            if name in self._results.tables
        }

    def _figure(self, name: str) -> Figure:
        """Collect what the page shows of a figure."""
        pages = self._pages[name]
        tables = registry.constant("figures", name, "TABLES") or ()
        settings = self._results.drawn.get(name, ())
        return Figure(
            name=name,
            number=self._numbers[name],
            title=registry.constant("figures", name, "TITLE"),
            category=registry.constant("figures", name, "CATEGORY"),
            pages=[self._pictures[page] for page in pages],
            caption=self._caption(f"figure_{name}"),
            files=[
                Link(page.with_suffix(suffix).name, f"figures/{page.stem}{suffix}")
                for page in pages
                for suffix in FORMATS
                if page.with_suffix(suffix) in self._results.figures
            ],
            data=[
                *(Link(f"tables/{table}.csv", f"tables/{table}.csv") for table in tables),
                *(Link(f"datasets/{name}.nc", f"datasets/{name}.nc") for name in settings),
            ],
            sentences=self._sentences_about(name),
        )

    def _table(self, name: str, title: str) -> Table | None:
        """Collect what the page shows of a table; None if it has no rows."""
        table = for_readers(name, self._results.tables[name], self._titles)
        if table is None or table.empty:
            return None
        shown = table.head(MAX_ROWS)
        columns = [column_of(shown[name]) for name in shown]
        return Table(
            name=name,
            title=title,
            caption=self._caption(f"table_{name}"),
            columns=columns,
            rows=[
                [cell(value, column) for value, column in zip(row, columns, strict=True)]
                for row in shown.itertuples(index=False)
            ],
            row_count=len(table),
            is_open=name in contents.OPEN_TABLES and len(shown) <= LONG_TABLE,
            file=Link(f"tables/{name}.csv", f"tables/{name}.csv"),
            sentences=self._sentences_about(name) if name not in self._pages else [],
        )

    def _caption(self, name: str) -> Markup:
        """Render a caption; empty if there is none."""
        path = self._captions.get(name)
        if path is None:
            return Markup()
        # docutils escapes the texts of users, which `captions.quoted` passes as plain text
        return Markup(captions.html(path, self._config))

    def _sentences_about(self, name: str) -> list[Sentence]:
        """List the sentences that belong to a figure or a table, without links."""
        statements = self._results.tables["statements"]
        return [
            Sentence(str(row["statement"]), [])
            for _, row in statements.iterrows()
            if self._home(str(row["about"])) == name
        ]

    def _home(self, about: str) -> str:
        """Return the figure or table below which sentences about something are listed."""
        if about in contents.TABLES or about in self._pages:
            return about
        figures, table = contents.SHOWN_BY.get(about, ((), ""))
        return table or next(iter(figures), "")

    def ranked_sentences(self) -> list[Sentence]:
        """List the most important sentences, the most important first."""
        statements = self._results.tables["statements"]
        rows = statements[statements["rank"].notna()].sort_values("rank", kind="stable")
        return [
            Sentence(str(row["statement"]), self._links(str(row["about"])))
            for _, row in rows.iterrows()
        ]

    def _links(self, about: str) -> list[Link]:
        """Link to the figure and the table that show what a sentence is about."""
        figures, table = contents.SHOWN_BY.get(about, ((about,), about))
        links = [
            Link(f"Figure {self._numbers[name]}", f"#figure-{name}")
            for name in figures
            if name in self._numbers
        ][:1]
        rows = self._results.tables.get(table)
        if table in contents.TABLES and rows is not None and not rows.empty:
            links.append(Link(f"table {table}".replace("_", " "), f"#table-{table}"))
        return links


def _index(names: Sequence[str], name: str) -> int:
    """Return the position of a name; the end for an unknown one."""
    return names.index(name) if name in names else len(names)


def figure_pages(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group the SVG files of figures, ``NAME.svg`` and ``NAME_2.svg`` and so on.

    Args:
        files: of all figures and formats; files that do not exist are left out.

    Returns:
        Pages in their order, by the name of the figure.
    """
    known = registry.names("figures")
    pages: dict[str, list[tuple[int, Path]]] = {}
    for path in files:
        if path.suffix != ".svg" or not path.exists():
            continue
        name, number = path.stem, 1
        match = re.fullmatch(r"(.+)_(\d+)", path.stem)
        if match and match[1] in known and path.stem not in known:
            name, number = match[1], int(match[2])
        pages.setdefault(name, []).append((number, path))
    return {name: [path for _, path in sorted(numbered)] for name, numbered in pages.items()}


def pictures(
    paths: Sequence[Path], max_characters: int = MAX_PICTURE_CHARACTERS
) -> dict[Path, Picture]:
    """Embed figures as SVG, but large ones as PNG with fewer colours.

    An image keeps the ids and styles of a figure apart from those of the page and of other figures.

    Args:
        paths: of the SVG files. A PNG is next to each.
        max_characters: of all pictures together.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    sources = {path: _svg_address(text) for path, text in texts.items()}
    total = sum(map(len, sources.values()))
    for path in sorted(paths, key=lambda path: (-len(sources[path]), path)):
        size = len(sources[path])
        png = path.with_suffix(".png")
        if (size > MAX_SVG_CHARACTERS or total > max_characters) and png.exists():
            sources[path] = _png_address(png)
            total += len(sources[path]) - size
    found = {}
    for path, text in texts.items():
        width, height = (round(MAGNIFICATION * pixels) for pixels in _size(text))
        # no quotation mark or ampersand is left in an address
        found[path] = Picture(Markup(sources[path]), width, height)
    return found


def _svg_address(svg: str) -> str:
    """Embed an SVG."""
    return f"data:image/svg+xml,{quote(_compact(svg), safe=SAFE_IN_ADDRESS)}"


def _size(svg: str) -> tuple[float, float]:
    """Return width and height of an SVG in pixels."""
    match = re.search(r'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if not match:
        return 648.0, 486.0
    width, height = (float(value) / POINTS_PER_PIXEL for value in match.groups())
    return width, height


def _compact(svg: str) -> str:
    """Shorten an SVG of matplotlib: no metadata, and hundredths of a point."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # numbers below 1 are scales, which need their digits
    svg = re.sub(r"\b([1-9]\d*\.\d\d)\d+", r"\1", svg)
    return re.sub(r"\s+", " ", svg)


def _png_address(path: Path) -> str:
    """Embed a PNG with fewer colours."""
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(COLOURS_OF_PNG, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    reduced.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def column_of(values: pd.Series) -> Column:
    """Describe a column: numbers are aligned to the right, and long texts get room to wrap."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return Column(str(values.name), Markup(" class=n"))
    texts = values.map(cell_text)
    # cells without an estimate say why in words
    if (has_estimate := texts.map(lambda text: bool(ESTIMATE.match(text)))).any():
        others = texts[~has_estimate]
        if not others.str.contains(r"^\W?\d").any():
            return Column(str(values.name), Markup(" class=e"), is_estimate=True)
    longest = texts.str.len().max()
    if longest > SENTENCE:
        return Column(str(values.name), Markup(" class=s"))
    return Column(str(values.name), Markup(" class=w" if longest > LONG_TEXT else ""))


def cell(value: object, column: Column) -> Cell:
    """Write a cell of a column."""
    text = cell_text(value)
    if not column.is_estimate:
        return Cell(text, column.attribute)
    estimate = ESTIMATE.match(text)
    order = estimate[1].replace("−", "-") if estimate else ""
    return Cell(text, Markup('{} data-order="{}"').format(column.attribute, order))


def cell_text(value: object) -> str:
    """Write the value of a cell: numbers with few digits, and nothing for a missing one."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{SIGNIFICANT_DIGITS}g}"
    return "" if value is None else str(value)


def _facts(config: Mapping[str, Any]) -> list[str]:
    """Say in a few words how large a study is."""
    counts = [
        (len(config["settings"]), "setting"),
        (config["seeds"]["report"], "seed"),
        (config["seeds"].get("tune") or 0, "tuning seed"),
        (len(config.get("statistics", {}).get("hypotheses", ())), "declared hypothesis"),
    ]
    facts = [f"{count} {_plural(noun, count)}" for count, noun in counts if count]
    operators = config["curvature"]["operators"]
    names = [registry.constant("operators", name, "NAME") or name for name in operators]
    return [*facts, f"curvature: {', '.join(names)}"]


def _plural(noun: str, count: int) -> str:
    """Return the form of a noun for a number."""
    if count == 1:
        return noun
    return f"{noun[:-2]}es" if noun.endswith("is") else f"{noun}s"


def _for_script(text: str) -> str:
    """Escape a script, so that nothing in it ends its element."""
    return re.sub(r"</(script)", r"<\\/\1", text, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def _for_style(text: str) -> str:
    """Return a stylesheet, if nothing in it ends its element."""
    if "</" in text:
        raise ValueError("the stylesheet of the tables ends its element")
    return text
