"""The report and the explorer work in headless Chromium."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
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
START_SECONDS = 60  # limit for the start of a server
DRAW_MILLISECONDS = 30_000  # limit for the drawing of plots


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


def find_free_port():
    """Return a port that no server uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_server(server, address):
    """Wait until a server answers; fail if it stops or needs too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    limit = time.monotonic() + START_SECONDS
    while True:
        try:
            opener.open(address, timeout=START_SECONDS).close()
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.2)
        else:
            return


@pytest.fixture(scope="module")
def address(tiny_study):
    """Start the server of the explorer, and return its address."""
    port = find_free_port()
    env = {
        key: value for key, value in tiny_study.env.items() if not key.lower().endswith("_proxy")
    }
    server = subprocess.Popen(
        [
            sys.executable,
            "workflow/scripts/explore.py",
            "--study",
            tiny_study.results,
            "--port",
            str(port),
        ],
        cwd=tiny_study.root,
        env=env,
    )
    address = f"http://localhost:{port}"
    wait_for_server(server, address)
    yield address
    server.terminate()
    server.wait()


def wait_for_axis(page, label):
    """Wait until a plot has an axis with this label; ask Bokeh, because plots are canvases."""
    models = "Bokeh.documents.flatMap(document => [...document._all_models.values()])"
    page.wait_for_function(
        f"label => window.Bokeh && {models}.some(model => model.axis_label === label)",
        arg=label,
        timeout=DRAW_MILLISECONDS,
    )


def test_choices_in_the_explorer_change_its_plots(browser, address):
    websocket = f"ws://{address.partition('//')[2]}"
    with open_page(browser, address, address, websocket) as page:
        figures = page.locator(".bk-Figure")
        sync_api.expect(figures).to_have_count(5, timeout=DRAW_MILLISECONDS)
        for label in ("final_error", "fisher_effective_rank", "eigenvalue"):
            wait_for_axis(page, label)
        page.get_by_label("measure").select_option("weight_norm")
        wait_for_axis(page, "weight_norm")
        outcome_of_first_setting = page.get_by_label("outcome").element_handle()
        page.get_by_label("setting").select_option("digits_labels_tanh")
        # The widgets belong to a setting, so those of the first setting disappear.
        outcome_of_first_setting.wait_for_element_state("hidden")
        page.get_by_label("outcome").select_option("online_error_gap")
        wait_for_axis(page, "online_error_gap")
        sync_api.expect(page.get_by_label("measure")).to_have_value("weight_norm")
        sync_api.expect(page.get_by_label("setting")).to_have_value("digits_labels_tanh")


def test_explorer_of_a_folder_without_results_is_refused(project_without_results):
    (project_without_results.root / "results/nothing").mkdir(parents=True)
    process = project_without_results.run(
        "python", "workflow/scripts/explore.py", "--study", "results/nothing"
    )
    assert process.returncode == 2
    assert "results/nothing/datasets has no setting. Run the study first" in process.stdout
    assert "Traceback" not in process.stdout
