"""Benchmarks of time: turns, tables, saved results, and the pages that show them."""

import json

import numpy as np
import pytest
from timing import pages, results, tables, turns
from timing.tables import Table
from timing.turns import Spread

TABLE = Table("loops", "way", {"ms": 1, "ratio": 2}, [["a", Spread(2, 1, 3), None], ["bc", 4, "–"]])
REDRAW = "run: PYTHONPATH=benchmarks python -m timing.pages"


def test_ways_take_turns():
    order = []
    ways = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = turns.take_turns(ways, 3)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_seconds_are_those_of_the_clock():
    ticks = iter([1.0, 3.0, 10.0, 15.0])
    assert turns.take_turns({"a": dict, "b": dict}, 1, lambda: next(ticks)) == {"a": [2], "b": [5]}


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_spread_has_the_quartiles_of_numpy(count):
    values = np.random.default_rng(0).exponential(size=count).tolist()
    expected = np.quantile(values, [0.5, 0.25, 0.75])
    np.testing.assert_allclose(Spread.of(values), expected, rtol=1e-14)


def test_ratio_is_taken_within_turns():
    """The second turn is slow for both ways."""
    assert turns.ratios([2, 40, 2], [1, 20, 1]).median == 2


def test_columns_of_a_table_are_aligned():
    assert TABLE.text().splitlines() == [
        "loops",
        "way             ms  ratio",
        "a    2.0 (1.0–3.0)",
        "bc             4.0      –",
    ]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Save the results of a benchmark that one page shows; return the file and the page."""
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- a: benchmarks/results/a.json -->\nold\n<!-- end of a -->\nafter\n"
    )
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(pages, "PAGES", {"a": page})
    one = results.Results("a", is_quick=True, setup="one thread")
    one.add(TABLE)
    one.finish(is_saved=True)
    return tmp_path / "results" / "a.json", page


def test_saved_results_name_the_machine_and_its_load(saved):
    content = json.loads(saved[0].read_text("utf-8"))
    assert content["tables"][0]["rows"][0] == ["a", [2, 1, 3], None]
    assert {"processor", "cores", "load_before", "load_after"} <= set(content)


def test_saved_table_is_drawn_into_the_page_as_it_was_printed(saved, capsys):
    page = saved[1].read_text("utf-8")
    assert TABLE.text() in page
    assert "one thread\na short run" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_redrawn_page_is_the_same(saved):
    page = saved[1].read_text("utf-8")
    assert pages.draw("a", page) == page


def test_a_page_without_its_comments_is_refused(saved):
    with pytest.raises(AssertionError, match="a"):
        pages.draw("a", "before\n")


@pytest.mark.parametrize("name", pages.PAGES)
def test_pages_show_the_saved_results(name):
    page = pages.PAGES[name].read_text("utf-8")
    assert pages.draw(name, page) == page, REDRAW


def test_every_benchmark_of_time_is_shown():
    """Make recognizes by this import what `--save` is passed to."""
    scripts = (pages.ROOT / "benchmarks").glob("*.py")
    timed = {path.stem for path in scripts if "\nfrom timing" in path.read_text("utf-8")}
    assert timed == set(pages.PAGES)


def test_every_saved_result_is_shown():
    assert {path.stem for path in pages.RESULTS.glob("*.json")} == set(pages.PAGES)


def test_text_of_saved_results_says_if_it_is_rough():
    content = results.machine() | {"setup": "", "load_before": 1, "load_after": 2, "tables": []}
    assert "rough" in tables.text(content | {"is_quick": True})
    assert "rough" not in tables.text(content | {"is_quick": False})
