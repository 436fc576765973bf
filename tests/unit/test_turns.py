"""Turns: ways alternate, and quartiles and ratios are those of numpy."""

import json

import numpy as np
import pytest
import turns


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
    np.testing.assert_allclose(turns.Spread.of(values), expected, rtol=1e-14)


def test_ratio_is_taken_within_turns():
    """The second turn is slow for both ways."""
    assert turns.ratios([2, 40, 2], [1, 20, 1]).median == 2


def test_saved_results_name_the_machine_and_its_load(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "RESULTS", tmp_path / "results")
    path = turns.save("a", 0.5, [{"way": "ours", "seconds": turns.Spread(2, 1, 3)}])
    saved = json.loads(path.read_text())
    assert saved["rows"] == [{"way": "ours", "seconds": [2, 1, 3]}]
    assert saved["load_before"] == 0.5
    assert {"processor", "cores", "load_after"} <= set(saved)
