"""The explorer works in headless Chromium: its plots are linked, and its tables download."""

import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_in_a_browser import CHROMIUM, browser, open_page  # noqa: F401 - a fixture

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="Chromium is not installed (Debian, Ubuntu: apt install chromium)"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
START_SECONDS = 60  # limit for the start of a server
DRAW_MILLISECONDS = 30_000  # limit for the drawing of plots
STILL_MILLISECONDS = 1000  # after which a page that did not move is laid out
MODELS = "Bokeh.documents.flatMap(document => [...document._all_models.values()])"
# The pixel of a point in a plot, whose models Bokeh draws on a canvas.
PIXEL = f"""([label, x, y]) => {{
    const plot = {MODELS}.find(model => model.type == 'Figure'
        && model.left.some(axis => axis.axis_label == label));
    const view = Bokeh.index.find_one(plot);
    const box = view.el.getBoundingClientRect();
    return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)];
}}"""


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
def running_study(tiny_study, tmp_path_factory):
    """Copy the results of the tiny study, as if one of its two settings were not finished."""
    results = tmp_path_factory.mktemp("running") / "tiny"
    (results / "datasets").mkdir(parents=True)
    for name in ("digits_labels_relu", "digits_labels_tanh"):
        (results / "runs" / name).mkdir(parents=True)
    finished = tiny_study.results / "datasets/digits_labels_relu.nc"
    shutil.copy(finished, results / "datasets")
    return results


@pytest.fixture(scope="module")
def address(tiny_study, running_study):
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
            running_study,
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


@pytest.fixture
def explorer(browser, address):  # noqa: F811 - a fixture
    """Open the page of the explorer, which must request nothing from other servers."""
    with open_page(browser, address, address, f"ws://{address.partition('//')[2]}") as page:
        sync_api.expect(page.locator(".bk-Figure")).to_have_count(5, timeout=DRAW_MILLISECONDS)
        for label in ("final error", "Fisher effective rank", "positive eigenvalue"):
            wait_for_axis(page, label)
        wait_until_still(page)
        yield page


def wait_for_axis(page, label):
    """Wait until a plot has an axis with this label; ask Bokeh, because plots are canvases."""
    page.wait_for_function(
        f"label => window.Bokeh && {MODELS}.some(model => model.axis_label === label)",
        arg=label,
        timeout=DRAW_MILLISECONDS,
    )


def wait_until_still(page):
    """Wait until the plots no longer move, as they do while the page is laid out."""
    figure = page.locator(".bk-Figure").last
    before = None
    while before != (before := figure.bounding_box()):
        page.wait_for_timeout(STILL_MILLISECONDS)


def expect_selection(page, *texts):
    """Expect that the text about the selection has these parts."""
    selection = page.get_by_text("Selected:").locator("..")
    for text in texts:
        sync_api.expect(selection).to_contain_text(text, timeout=DRAW_MILLISECONDS)


def click_point(page, label, x, y):
    """Click the point of a plot, whose y axis has this label."""
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    page.mouse.click(*page.evaluate(PIXEL, [label, x, y]))


def has_overflow(page):
    """Tell whether the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_choices_change_the_plots(explorer):
    explorer.get_by_label("Measure", exact=True).select_option(label="weight norm")
    wait_for_axis(explorer, "weight norm")
    explorer.get_by_label("Outcome", exact=True).select_option(label="online error gap")
    wait_for_axis(explorer, "online error gap")


def test_clicked_point_selects_its_run_and_moves_the_spectrum(explorer, running_study):
    data = xr.load_dataset(running_study / "datasets/digits_labels_relu.nc")
    errors = data["final_error"].sel(task=2)
    click_point(explorer, "final error", 2, float(errors.sel(arm="none", seed=0)))
    expect_selection(explorer, "no intervention, seed 0", "task 2")
    sync_api.expect(explorer.get_by_text("Task of the spectrum: 2")).to_be_visible(
        timeout=DRAW_MILLISECONDS
    )
    explorer.get_by_role("button", name="Clear the selection").click()
    sync_api.expect(explorer.get_by_text("Nothing is selected.")).to_be_visible(
        timeout=DRAW_MILLISECONDS
    )


def test_clicked_spectrum_selects_its_run_in_all_plots(explorer, running_study):
    data = xr.load_dataset(running_study / "datasets/digits_labels_relu.nc")
    spectra = data["fisher_eigenvalue"].sel(task=4, evaluation_point="next", block="all")
    eigenvalue = float(spectra.sel(arm="none", seed=1, rank=0))
    click_point(explorer, "positive eigenvalue", 1, eigenvalue)
    expect_selection(explorer, "no intervention, seed 1", "5 points")


def test_box_over_tasks_selects_them_in_all_runs(explorer, running_study):
    errors = xr.load_dataset(running_study / "datasets/digits_labels_relu.nc")["final_error"]
    middle = float(errors.sel(arm=["none", "fresh"]).mean())
    explorer.locator(".bk-Figure").first.scroll_into_view_if_needed()
    left, top = explorer.evaluate(PIXEL, ["final error", 0.7, middle])
    right, bottom = explorer.evaluate(PIXEL, ["final error", 2.3, middle])
    explorer.mouse.move(left, top)
    explorer.mouse.down()
    explorer.mouse.move(right, bottom + 10, steps=4)
    explorer.mouse.up()
    expect_selection(explorer, "tasks 1, 2", "8 points")  # of 2 arms and 2 seeds


def test_download_has_the_numbers_of_the_dataset(explorer, running_study):
    with explorer.expect_download() as started:
        explorer.get_by_text("Every seed and task", exact=True).last.click()
    table = pd.read_csv(io.StringIO(started.value.path().read_text()))
    assert started.value.suggested_filename == "tiny_runs.csv"
    data = xr.load_dataset(running_study / "datasets/digits_labels_relu.nc")
    stored = data["final_error"].sel(arm=["none", "fresh"]).values.ravel()
    np.testing.assert_array_equal(table["final_error"].astype(np.float32), stored)


@pytest.mark.parametrize("width", [1400, 800])
def test_page_is_not_wider_than_its_window(explorer, width):
    explorer.set_viewport_size({"width": width, "height": 900})
    explorer.wait_for_timeout(500)
    assert not has_overflow(explorer)
    boxes = [explorer.locator(".bk-Figure").nth(index).bounding_box() for index in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]  # curves are beside each other


def test_dataset_that_is_finished_later_appears_by_itself(explorer, running_study, tiny_study):
    sync_api.expect(explorer.get_by_text("digits labels tanh. New results")).to_be_visible(
        timeout=DRAW_MILLISECONDS
    )
    name = "digits_labels_tanh.nc"
    part = running_study / f"{name}.part"
    shutil.copy(tiny_study.results / "datasets" / name, part)
    part.replace(running_study / "datasets" / name)
    setting = explorer.get_by_label("Setting", exact=True)
    sync_api.expect(setting).not_to_contain_text("not finished", timeout=DRAW_MILLISECONDS)
    setting.select_option(label="digits, shuffled labels, tanh")
    heading = explorer.get_by_role("heading", name="digits, shuffled labels, tanh")
    sync_api.expect(heading).to_be_visible(timeout=DRAW_MILLISECONDS)


def test_explorer_of_a_folder_without_results_is_refused(project_without_results):
    (project_without_results.root / "results/nothing").mkdir(parents=True)
    process = project_without_results.run(
        "python", "workflow/scripts/explore.py", "--study", "results/nothing"
    )
    assert process.returncode == 2
    assert "results/nothing/datasets has no setting. Run the study first" in process.stdout
    assert "Traceback" not in process.stdout
