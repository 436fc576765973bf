"""The report works in headless Chromium."""

import re
import shutil
from contextlib import contextmanager

import pytest

from plasticity.config import registry

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
FIGURES = {name: registry.constant("figures", name, "TITLE") for name in registry.names("figures")}
PAGES = {  # the title of one table of each page, and the column to sort it by
    "outcomes": ("outcomes of every arm", "stage"),
    "explanations": ("where an explanation fails", "verdict"),
    "interventions": (
        "which measure orders treated copies of a checkpoint by their error",
        "statistic",
    ),
    "methods": ("comparison of methods", "statistic"),
}


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
def open_page(browser, address, *home):
    """Open a page; at the end check that it had no errors and requested nothing outside `home`."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    watched = WatchedPage(page, (*home, "data:", "blob:", "file:"))
    page.goto(address)
    yield page
    page.close()
    assert not watched.errors
    assert not watched.requests


@pytest.fixture
def report(browser, tiny_study):
    """Open the report of the tiny study."""
    with open_page(browser, (tiny_study.results / "report.html").as_uri()) as page:
        yield page


def find_row(page, category, title):
    """Choose a category in the menu, and return the row of a result in it."""
    page.get_by_role("link", name=category).click()
    return page.locator("tr", has=page.get_by_role("cell", name=title, exact=True))


def show(row):
    """Show the result of a row."""
    row.locator('a[iconname="eye"]').click()


def test_first_page_states_the_result_and_starts_at_its_top(report):
    text = report.locator(".prose")
    assert text.bounding_box()["y"] >= 0
    result = (
        r"digits_labels_relu: without an intervention the final error is 0\.\d{3}"
        r" on early tasks"
    )
    assert re.search(result, text.inner_text())
    assert "torch" in text.inner_text()
    rule_name = report.get_by_text("figure_scatter")
    rule_graph = report.locator("#rulegraph svg, #rulegraph canvas")
    assert rule_name.count() or rule_graph.count()


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_shown_from_its_top_with_its_caption(report, name):
    row = find_row(report, registry.constant("figures", name, "CATEGORY"), FIGURES[name])
    show(row)
    picture = report.locator("#app .grow img")
    picture.wait_for()
    report.wait_for_function("() => document.querySelector('#app .grow img').naturalWidth > 0")
    box = picture.bounding_box()
    assert box["y"] >= 0
    assert box["width"] > 400
    row.locator('a[iconname="information-circle"]').click()
    caption = report.locator(".prose", has=report.locator("strong")).first.inner_text()
    assert "2 seeds" in caption
    assert "5 tasks" in caption


@pytest.mark.parametrize("name", PAGES)
def test_tables_can_be_sorted_and_searched(report, name):
    title, sort_column = PAGES[name]
    show(find_row(report, "6 Tables", name))
    frame = report.frame_locator("iframe")
    heading = frame.get_by_role("heading", name=title, exact=True)
    section = frame.locator("section", has=heading)
    rows = section.locator(".dt-scroll-body tbody tr")
    rows.first.wait_for()
    row_count = rows.count()
    first_row = rows.first.inner_text()
    column = section.locator(".dt-scroll-head").get_by_role("button", name=f"{sort_column}: ")
    column.click()  # ascending
    column.click()  # descending
    sync_api.expect(rows.first).not_to_have_text(first_row, use_inner_text=True)
    section.get_by_role("searchbox").fill("no such word")
    sync_api.expect(rows).to_have_count(1)
    assert "No matching records" in rows.first.inner_text()
    section.get_by_role("searchbox").fill("")
    sync_api.expect(rows).to_have_count(row_count)


def test_run_times_of_rules_are_shown(report):
    report.get_by_role("link", name="Statistics").click()
    sync_api.expect(report.locator("#runtimes canvas, #runtimes svg").first).to_be_visible()
