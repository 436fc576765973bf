"""Changes between two sets of a job's params are described in words."""

import json

import pytest

from plasticity.provenance import rerun_reasons


def recorded(*params):
    """Return params as Snakemake records them."""
    texts = [
        param if isinstance(param, str) else json.dumps(param, sort_keys=True) for param in params
    ]
    return set(map(repr, texts))


CODE = {"a.py": "0f", "b.py": "1e", "torch": "2.0"}


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ([CODE], [CODE | {"b.py": "2d"}], ["b.py changed"]),
        ([CODE], [CODE | {"torch": "2.1"}], ["torch: 2.0 → 2.1"]),
        ([CODE], [CODE | {"c.py": "3c"}], ["c.py is new"]),
        ([CODE | {"c.py": "3c"}], [CODE], ["c.py is no longer used"]),
        (
            [{"lr": 0.1, "network": {"width": 8}}],
            [{"lr": 0.1, "network": {"width": 16}}],
            ["network.width: 8 → 16"],
        ),
        ([{"arms": [{"l": 1}]}], [{"arms": [{"l": 1}, {"l": 2}]}], ["arms.1.l: nothing → 2"]),
        ([{"a": 1, "b": 2}], [{"b": 2}], ["a: 1 → nothing"]),
        ([{"a": "x"}], [{"a": "y"}], ["a: x → y"]),
        ([{"width": 2, "depth": 8}], [{"width": 8, "depth": 2}], ["depth: 8 → 2", "width: 2 → 8"]),
        (
            [{"blocks": []}],
            [{"blocks": ["all"]}],
            ["blocks: [] → nothing", "blocks.0: nothing → all"],
        ),
        ([CODE, {"lr": 1}], [CODE | {"a.py": "5"}, {"lr": 2}], ["a.py changed", "lr: 1 → 2"]),
        (["l2/0"], ["l2/0-1", "l2/2"], ["l2/0 → l2/0-1 l2/2"]),
        ([], ["l2/1"], ["nothing → l2/1"]),
        ([], [], []),
    ],
)
def test_changes_are_named(before, now, changes):
    assert rerun_reasons.describe_changes(recorded(*before), recorded(*now)) == changes


def test_long_values_are_shortened():
    before, now = recorded({"a": "x" * 500}), recorded({"a": "y" * 500})
    (change,) = rerun_reasons.describe_changes(before, now)
    assert len(change) < 150


def test_summary_names_three_changes_and_counts_the_others():
    assert rerun_reasons.summarize(["a", "b", "c"]) == "a, b, c"
    assert rerun_reasons.summarize(list("abcde")) == "a, b, c and 2 more"
