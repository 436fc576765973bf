"""What changed between two sets of a job's params, in a person's words."""

import json

import pytest

from plasticity.provenance import rerun_reasons


def written(*params):
    """Params as Snakemake records them."""
    return {
        repr(one if isinstance(one, str) else json.dumps(one, sort_keys=True)) for one in params
    }


CODE = {"a.py": "0f", "b.py": "1e", "torch": "2.0"}


@pytest.mark.parametrize(
    ("before", "now", "said"),
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
def test_what_differs_is_named(before, now, said):
    assert rerun_reasons.of_params(written(*before), written(*now)) == said


def test_what_is_long_is_shortened_and_many_parts_are_counted():
    (said,) = rerun_reasons.of_params(written({"a": "x" * 500}), written({"a": "y" * 500}))
    assert len(said) < 150
    assert rerun_reasons.told(["a", "b", "c"]) == "a, b, c"
    assert rerun_reasons.told(list("abcde")) == "a, b, c and 2 more"
