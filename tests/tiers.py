"""Which cases of a test run in `make test`, and which only in `make test-all`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(quick: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """Return the values as parameters of a test, of which all but the quick ones are marked as slow.

    Args:
        quick: values that stand for the others in `make test`.
        values: all values; those that are tuples are the values of several parameters.

    Raises:
        ValueError: a quick value is none of the values, so the test would not run at all.
    """
    values = list(values)
    if missing := [value for value in quick if value not in values]:
        raise ValueError(f"not among the parameters: {missing}")
    marks = [() if value in quick else pytest.mark.slow for value in values]
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
        for value, mark in zip(values, marks, strict=True)
    ]
