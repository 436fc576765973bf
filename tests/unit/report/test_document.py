"""The report shows every figure and table once, with captions, and loads nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml

from plasticity.config import registry
from plasticity.report import contents, document

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "workflow" / "report"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
TEMPLATE = (REPORT / "report.html.j2").read_text(encoding="utf-8")
STYLESHEET = (REPORT / "report.css").read_text(encoding="utf-8")
CAPTIONS = sorted(REPORT.glob("*_*.rst"))
FIGURES = registry.names("figures")
HOSTILE = '<script>alert(1)</script> & "quotes" <img src=x onerror=alert(1)> {{ config }}'
STATEMENTS = pd.DataFrame(
    [
        ("loss", "", "a", "a: plasticity is lost.", 1),
        ("scatter", "fisher_effective_rank", "a", "a: the rank falls.", 3),
        ("counterexamples", "dead_fraction", "", HOSTILE, 2),
        ("comparisons", "", "", "The fourth.", 4),
        ("interventions", "", "", "The fifth.", 5),
        ("hypotheses", "", "", "The sixth.", 6),
        ("prediction", "", "", "Not ranked.", np.nan),
    ],
    columns=["about", "measure", "setting", "statement", "rank"],
)


class Outline(HTMLParser):
    """What a page contains: headings, ids, links and addresses that a browser loads.

    Attributes:
        ids: in the order of the page.
        loaded: addresses that a browser requests by itself.
        links: addresses of links.
        tags: names of all elements.
    """

    def __init__(self, page):
        super().__init__()
        self.ids, self.loaded, self.links, self.tags = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif "src" in values or "href" in values:
            self.loaded.append(values.get("src") or values["href"])


def write_figure(folder, stem, points=3):
    """Draw a small figure in all formats, and return its files."""
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot(np.random.default_rng(0).random(points))
    files = []
    for suffix in document.FORMATS:
        files.append(folder / f"{stem}{suffix}")
        figure.savefig(files[-1])
    plt.close(figure)
    return files


def tables(**changes):
    """Return all tables of the page with two rows, and these changes."""
    rows = pd.DataFrame({"setting": ["a", "b"], "mean": [0.123456789, np.nan], "seeds": [5, 5]})
    return dict.fromkeys(contents.TABLES, rows) | {"statements": STATEMENTS} | changes


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Draw a figure for each name, and a second page of one."""
    folder = tmp_path_factory.mktemp("figures")
    stems = [*FIGURES, "scatter_2"]
    return [file for stem in stems for file in write_figure(folder, stem)]


def results(figures, **changes):
    """Return results of a study with these changes."""
    values = {
        "config": CONFIG | {"study": "tiny"},
        "figures": figures,
        "tables": tables(),
        "other_tables": ["measures"],
        "captions": CAPTIONS,
        "drawn": {name: ["a", "b"] for name in FIGURES},
        "versions": "Trained and measured with torch 1.",
    }
    return document.Results(**values | changes)


def write(figures, **changes):
    """Write the report of results with these changes."""
    return document.document(results(figures, **changes), TEMPLATE, STYLESHEET)


@pytest.fixture(scope="module")
def page(figures):
    """Write the report once."""
    return write(figures)


def text_of(piece):
    """Return the text of a piece of HTML."""
    return " ".join(re.sub(r"<[^>]+>", " ", piece).split())


def element(page, name, identifier):
    """Return the first element with this name and id, up to its end tag."""
    start = page.index(f'<{name} id="{identifier}"')
    return page[start : page.index(f"</{name}>", start)]


def test_sections_are_in_order(page):
    anchors = [name for name in Outline(page).ids if name in {s.anchor for s in contents.SECTIONS}]
    assert anchors == [
        "result",
        "loss",
        "associations",
        "interventions",
        "methods",
        "tests",
        "cost",
    ]


def test_every_figure_is_in_the_section_of_its_category_with_its_caption(page):
    for section in contents.SECTIONS:
        body = element(page, "section", section.anchor)
        for name in FIGURES:
            is_here = registry.constant("figures", name, "CATEGORY") in section.categories
            assert (f'<figure id="figure-{name}">' in body) == is_here, name
    for name in FIGURES:
        caption = element(page, "figure", f"figure-{name}").partition("<figcaption>")[2]
        first_words = re.search(r"\*\*(.+?)\*\*", (REPORT / f"figure_{name}.rst").read_text())[1]
        assert f"<strong>{first_words}</strong>" in caption
        before_caption = caption.partition("<strong>")[0]
        assert "<details" not in before_caption, "the caption is visible"


def test_every_figure_has_a_category_of_a_section():
    known = {category for section in contents.SECTIONS for category in section.categories}
    for name in FIGURES:
        assert registry.constant("figures", name, "CATEGORY") in known


def test_every_table_is_shown_once_and_folded(page):
    ids = [name for name in Outline(page).ids if name.startswith("table-")]
    assert sorted(ids) == sorted(f"table-{name}" for name in contents.TABLES)
    for name in contents.TABLES:
        assert page.count(f'href="tables/{name}.csv"') >= 1
        opened = re.search(f'<details class="[^"]*" id="table-{name}"( open)?>', page)[1]
        assert bool(opened) == (name in contents.OPEN_TABLES)
        first_words = re.search(
            r"\*\*(.+?)\*\*", (REPORT / f"table_{name}.rst").read_text(), re.DOTALL
        )
        body = page[page.index(f'id="table-{name}"') :]
        assert text_of(first_words[1]) in text_of(body[:3000])


def test_ids_are_unique_and_links_in_the_page_have_a_target(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    targets = {link[1:] for link in outline.links if link.startswith("#")}
    assert targets <= set(outline.ids)


def test_page_loads_nothing_but_its_own_data(page):
    outline = Outline(page)
    assert outline.loaded
    assert all(address.startswith("data:") for address in outline.loaded)
    assert not re.search(r"@import|url\(\s*['\"]?https?:", page)
    assert not [link for link in outline.links if "://" in link]


def test_equal_results_give_equal_bytes(page, figures):
    assert write(figures) == page
    assert write(list(reversed(figures))) == page


def test_first_page_has_the_five_most_important_sentences_with_links(page):
    first_page = element(page, "section", "result")
    shown, _, more = first_page.partition("<details")
    sentences = re.findall(r"<li>(.*?)(?: <span|</li>)", shown)
    assert sentences[0] == "a: plasticity is lost."
    assert sentences[2:] == ["a: the rank falls.", "The fourth.", "The fifth."]
    assert 'href="#figure-scatter"' in shown
    assert 'href="#table-summary"' in shown
    assert "The sixth." in more
    assert "Not ranked." not in first_page


def test_texts_of_a_study_are_escaped(figures):
    page = write(
        figures,
        config=CONFIG | {"study": "<b>x</b>"},
        tables=tables(arms=pd.DataFrame({HOSTILE: ["<i>cell</i>"]})),
    )
    assert "<b>x" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<script>alert" not in page
    assert "<i>cell" not in page
    assert "img" not in {tag for tag in Outline(page).tags if "onerror" in tag}
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3


def test_pages_of_a_figure_follow_each_other_with_one_caption(page, figures):
    figure = element(page, "figure", "figure-scatter")
    assert figure.count("<img ") == 2
    assert figure.count("<figcaption>") == 1
    assert 'href="figures/scatter_2.pdf"' in figure
    stems = [path.stem for path in document.figure_pages(figures)["scatter"]]
    assert stems == ["scatter", "scatter_2"]


def test_figures_link_to_their_files_and_data(page):
    figure = element(page, "figure", "figure-scatter")
    for address in ("figures/scatter.pdf", "tables/associations.csv", "datasets/a.nc"):
        assert f'href="{address}"' in figure


def test_many_data_files_of_a_figure_are_folded(figures):
    drawn = {name: [f"setting_{k}" for k in range(14)] for name in FIGURES}
    figure = element(write(figures, drawn=drawn), "figure", "figure-curvature")
    assert "<summary>Data: 14 files</summary>" in figure
    assert 'href="datasets/setting_13.nc"' in figure


def test_missing_figure_is_left_out(figures, tmp_path):
    files = [path for path in figures if path.stem != "curvature"] + [tmp_path / "layers.svg"]
    page = write([path for path in files if path.parent == tmp_path or path.stem != "layers"])
    assert "figure-curvature" not in page
    assert "figure-layers" not in page
    assert "figure-scatter" in page


def test_figure_of_a_category_without_section_is_shown_with_the_methods(figures, monkeypatch):
    constant = registry.constant

    def other_category(kind, name, target):
        if (name, target) == ("scatter", "CATEGORY"):
            return "9 Mine"
        return constant(kind, name, target)

    monkeypatch.setattr(registry, "constant", other_category)
    assert "figure-scatter" in element(write(figures), "section", "methods")


def test_table_without_rows_is_named_and_not_shown(figures):
    empty = pd.DataFrame(columns=["setting", "mean"])
    page = write(figures, tables=tables(tuning=empty, hypotheses=empty))
    assert 'id="table-tuning"' not in page
    assert "Without rows in this study: scores of arms" in element(page, "section", "methods")
    assert "every test is exploratory" in element(page, "section", "tests")


def test_study_without_interventions_says_so(figures):
    empty = pd.DataFrame(columns=["setting"])
    section = element(
        write(figures, tables=tables(interventions=empty)), "section", "interventions"
    )
    assert "This study has none." in section
    assert "<figure" not in section


def test_numbers_are_rounded_and_missing_ones_are_words(page):
    body = page[page.index('id="table-arms"') :]
    body = body[: body.index("</table>")]
    assert '<td class=e data-order="0.1235">0.1235</td>' in body
    assert '<td class=e data-order="">not tested</td>' in body
    assert "0.123456" not in page
    assert "nan" not in text_of(body).lower()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (152.0, "152"), (1e-9, "1e-09"), (np.nan, ""), (None, ""), (True, "yes")],
)
def test_cell_is_short(value, text):
    assert document.cell_text(value) == text


def test_estimates_with_intervals_are_sorted_by_their_number(figures):
    table = pd.DataFrame(
        {
            "estimate": [0.5, -0.07, 1e-5, np.nan],
            "low": [0.4, -0.1, np.nan, np.nan],
            "high": [0.6, -0.01, np.nan, np.nan],
            "range": ["1 to 2", "2", "3", "4"],
        }
    )
    body = (
        write(figures, tables=tables(arms=table))
        .partition('id="table-arms"')[2]
        .partition("</table>")[0]
    )
    orders = re.findall(r'<td class=e data-order="([^"]*)">', body)
    assert orders == ["0.5", "-0.07", "1e-05", ""]
    assert "<td>1 to 2</td>" in body


def test_long_table_shows_its_first_rows_and_says_so(figures):
    long = pd.DataFrame({"mean": np.arange(3000)})
    page = write(figures, tables=tables(outcomes=long))
    body = page[page.index('id="table-outcomes"') :]
    assert "The first 1000 rows are shown." in body[: body.index("<table")]
    assert body[: body.index("</table>")].count("<tr>") == 1001


def test_large_figures_are_embedded_as_png_until_they_fit(tmp_path):
    small = write_figure(tmp_path, "layers")[0]
    large = write_figure(tmp_path, "scatter", points=20_000)[0]
    both = document.pictures([small, large])
    assert both[large].source.startswith("data:image/svg+xml,")
    limited = document.pictures([small, large], max_characters=len(both[large].source))
    assert limited[large].source.startswith("data:image/png;base64,")
    assert limited[small] == both[small]
    assert limited[large][1:] == both[large][1:], "the size on the page is the same"


def test_statistics_of_the_config_are_stated(figures):
    config = CONFIG | {"statistics": {"lost": 0.07}}
    assert "interval of this growth lies above 0.07" in text_of(write(figures, config=config))
