"""The report and the page to explore, as a reader sees them: in a real, headless Chromium."""

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
        CHROMIUM is None, reason="there is no Chromium (Debian, Ubuntu: apt install chromium)"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FIGURES = {name: registry.constant("figures", name, "TITLE") for name in registry.names("figures")}
PAGES = {  # a table on each, and a column to sort it by
    "outcomes": ("outcomes of every arm", "stage"),
    "explanations": ("where an explanation fails", "verdict"),
    "methods": ("methods beside each other", "statistic"),
}


class Page:
    """A page, and what went wrong with it.

    Attributes:
        page: Playwright's.
        errors: in its console.
        requests: that left it, but for those to `home`.
    """

    def __init__(self, page, home):
        self.page, self.errors, self.requests = page, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                self.requests.append(request.url) if not request.url.startswith(home) else None
            ),
        )


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, address, *home):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    watched = Page(page, (*home, "data:", "blob:", "file:"))
    page.goto(address)
    yield watched
    page.close()
    assert not watched.errors
    assert not watched.requests, "a page that is read anywhere loads nothing"


@pytest.fixture
def report(browser, built):
    with opened(browser, (built.results / "report.html").as_uri()) as watched:
        yield watched.page


def entry(page, category, title):
    """The row of a result in the menu, after its category was chosen."""
    page.get_by_role("link", name=category).click()
    return page.locator("tr", has=page.get_by_role("cell", name=title, exact=True))


def show(row):
    row.locator('a[iconname="eye"]').click()


def test_the_first_page_states_the_result_from_its_top_on(report):
    text = report.locator(".prose")
    assert text.bounding_box()["y"] >= 0, "the beginning can be read"
    said = text.inner_text()
    assert re.search(
        r"digits_labels_relu: without an intervention the final error is 0\.\d{3} on the first eighth",
        said,
    )
    assert "torch" in said
    assert (
        report.get_by_text("figure_scatter").count()
        or report.locator("#rulegraph svg, #rulegraph canvas").count()
    )


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_shows_with_its_caption(report, name):
    row = entry(report, registry.constant("figures", name, "CATEGORY"), FIGURES[name])
    show(row)
    picture = report.locator("#app .grow img")
    picture.wait_for()
    report.wait_for_function("() => document.querySelector('#app .grow img').naturalWidth > 0")
    box = picture.bounding_box()
    assert box["y"] >= 0, "a tall figure begins where it can be seen"
    assert box["width"] > 400
    row.locator('a[iconname="information-circle"]').click()
    caption = report.locator(".prose", has=report.locator("strong")).first.inner_text()
    assert "2 seeds" in caption
    assert "5 tasks" in caption


@pytest.mark.parametrize("name", PAGES)
def test_tables_can_be_sorted_and_searched(report, name):
    show(entry(report, "5 Tables", name))
    frame = report.frame_locator("iframe")
    section = frame.locator(
        "section", has=frame.get_by_role("heading", name=PAGES[name][0], exact=True)
    )
    rows = section.locator(".dt-scroll-body tbody tr")
    rows.first.wait_for()
    before = rows.count()
    first = rows.first.inner_text()
    column = section.locator(".dt-scroll-head").get_by_role("button", name=f"{PAGES[name][1]}: ")
    column.click()  # ascending, then descending
    column.click()
    sync_api.expect(rows.first).not_to_have_text(first, use_inner_text=True)
    section.get_by_role("searchbox").fill("no such word")
    sync_api.expect(rows).to_have_count(1)
    assert "No matching records" in rows.first.inner_text()
    section.get_by_role("searchbox").fill("")
    sync_api.expect(rows).to_have_count(before)


def test_times_of_rules_are_shown(report):
    report.get_by_role("link", name="Statistics").click()
    sync_api.expect(report.locator("#runtimes canvas, #runtimes svg").first).to_be_visible()


@pytest.fixture(scope="module")
def address(built):
    """Where the page to explore is served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {key: value for key, value in built.env.items() if not key.lower().endswith("_proxy")}
    server = subprocess.Popen(
        [sys.executable, "workflow/scripts/explore.py", built.results, "--port", str(port)],
        cwd=built.root,
        env=env,
    )
    address, limit = f"http://localhost:{port}", time.monotonic() + 60
    while True:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                address, timeout=60
            ):
                break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.2)
    yield address
    server.terminate()
    server.wait()


def drawn(page, label, timeout=30_000):
    """Wait until some figure has an axis of that name; figures are canvases, so Bokeh is asked."""
    models = "Bokeh.documents.flatMap(document => [...document._all_models.values()])"
    page.wait_for_function(
        f"label => window.Bokeh && {models}.some(model => model.axis_label === label)",
        arg=label,
        timeout=timeout,
    )


def test_a_study_is_explored(browser, address):
    with opened(browser, address, address, f"ws://{address.partition('//')[2]}") as watched:
        page = watched.page
        sync_api.expect(page.locator(".bk-Figure")).to_have_count(4, timeout=30_000)
        for label in ("final_error", "fisher_effective_rank", "eigenvalue"):
            drawn(page, label)
        page.get_by_label("measure").select_option("weight_norm")
        drawn(page, "weight_norm")
        of_the_other = page.get_by_label("outcome").element_handle()
        page.get_by_label("setting").select_option("digits_labels_tanh")
        of_the_other.wait_for_element_state("hidden")  # each setting has choices of its own
        page.get_by_label("outcome").select_option("online_error_gap")
        drawn(page, "online_error_gap")
        sync_api.expect(page.get_by_label("measure")).to_have_value("weight_norm")
        sync_api.expect(page.get_by_label("setting")).to_have_value("digits_labels_tanh")


def test_a_folder_without_results_is_a_sentence(unbuilt):
    done = unbuilt.run("python", "workflow/scripts/explore.py", "results/nothing")
    assert done.returncode == 2
    assert "results/nothing/datasets has no setting: run the study first" in done.stdout
    assert "Traceback" not in done.stdout
