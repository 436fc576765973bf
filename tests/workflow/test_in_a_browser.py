"""The report works in headless Chromium."""

import re
import shutil
from contextlib import contextmanager

import pytest

from plasticity.config import registry
from plasticity.report import contents
from plasticity.report.reader_tables import for_readers
from plasticity.statistics.table_files import read_table

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian, Ubuntu: apt install chromium)"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FIGURES = registry.names("figures")
SECTIONS = [section.anchor for section in contents.SECTIONS]
WIDTHS = (1400, 800)


class WatchedPage:
    """A page of Playwright with a record of its errors and requests.

    Attributes:
        page: the page.
        home: beginnings of the addresses that it may request.
        errors: messages of errors in its console.
        requests: addresses that it requested outside `home`.
    """

    def __init__(self, page, home):
        self.page = page
        self.home = home
        self.errors = []
        self.requests = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.record_message)
        page.on("request", self.record_request)

    def record_message(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def record_request(self, request):
        if not request.url.startswith(self.home):
            self.requests.append(request.url)


@pytest.fixture(scope="module")
def browser():
    """Start Chromium once."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def open_page(browser, address, *home, width=1400):
    """Open a page; at the end check that it had no errors and requested nothing outside `home`."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    watched = WatchedPage(page, (*home, "data:", "blob:"))
    page.goto(address)
    yield page
    page.close()
    assert not watched.errors
    assert not watched.requests


@pytest.fixture(params=WIDTHS)
def report(request, browser, tiny_study):
    """Open the report of the tiny study in windows of several widths."""
    address = (tiny_study.results / "report.html").as_uri()
    with open_page(browser, address, address, width=request.param) as page:
        yield page


def overflow(page):
    """Return by how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def check_inside(page, locator):
    """Check that an element is visible and not cut at the sides of the window."""
    sync_api.expect(locator).to_be_visible()
    box = locator.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_report_starts_with_the_question_and_at_most_five_results(report):
    assert report.locator("h1").bounding_box()["y"] < 300
    sentences = report.locator("#result .results li")
    assert 1 <= sentences.count() <= 5
    check_inside(report, sentences.first)
    assert "plasticity" in report.locator("#result").inner_text()


def test_every_section_is_visible_and_in_the_contents(report):
    for anchor in SECTIONS:
        check_inside(report, report.locator(f"#{anchor} h2"))
        check_inside(report, report.locator(f"nav a[href='#{anchor}']"))
    assert overflow(report) <= 0


def test_every_figure_and_its_caption_are_visible_and_not_cut(report):
    for name in FIGURES:
        figure = report.locator(f"#figure-{name}")
        picture = figure.locator("img").first
        picture.scroll_into_view_if_needed()
        check_inside(report, picture)
        natural = picture.evaluate("async img => { await img.decode(); return img.naturalWidth }")
        assert natural > 100, name
        check_inside(report, figure.locator("figcaption strong").first)
        assert "5 tasks" in figure.locator("figcaption").inner_text()


def test_every_table_unfolds_with_its_caption(report, tiny_study):
    for name in contents.TABLES:
        if for_readers(name, read_table(tiny_study.results / f"tables/{name}.csv"), {}) is None:
            assert report.locator(f"#table-{name}").count() == 0
            continue
        fold = report.locator(f"#table-{name}")
        if fold.get_attribute("open") is None:
            fold.locator("> summary").click()
        check_inside(report, fold.locator(".caption strong").first)
        table = fold.locator("table.data")
        sync_api.expect(table.locator("tbody tr").first).to_be_visible()
        sync_api.expect(table).to_have_class(re.compile("dataTable"))
    assert overflow(report) <= 0, "tables scroll, and the page does not"


def test_link_of_a_sentence_unfolds_its_table(report):
    link = report.locator("#result .results a[href^='#table-']").first
    table = link.get_attribute("href")
    link.click()
    sync_api.expect(report.locator(f"{table} table.data")).to_be_visible()


def test_long_table_can_be_sorted_and_searched(report):
    fold = report.locator("#table-outcomes")
    fold.locator("> summary").click()
    rows = fold.locator("tbody tr")
    search = fold.get_by_role("searchbox")
    search.wait_for()
    row_count = rows.count()
    first_row = rows.first.inner_text()
    heading = fold.locator("thead th").nth(3)
    heading.click()  # ascending
    heading.click()  # descending
    sync_api.expect(rows.first).not_to_have_text(first_row, use_inner_text=True)
    search.fill("no such word")
    sync_api.expect(rows).to_have_count(1)
    assert "No matching records" in rows.first.inner_text()
    search.fill("")
    sync_api.expect(rows).to_have_count(row_count)


def test_paper_has_figures_and_small_tables_but_no_contents(browser, tiny_study):
    address = (tiny_study.results / "report.html").as_uri()
    with open_page(browser, address, address, width=700) as page:
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        sync_api.expect(page.locator("nav")).to_be_hidden()
        for name in ("cost", "settings"):
            sync_api.expect(page.locator(f"#table-{name} table.data")).to_be_visible()
        sync_api.expect(page.locator("#table-outcomes table.data")).to_be_hidden()
        for name in FIGURES:
            check_inside(page, page.locator(f"#figure-{name} img").first)
        assert overflow(page) <= 0
