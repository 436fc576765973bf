"""Choose which cases of a test run in `make test`. The others run only in `make test-all`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_except(quick: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """Return values as parameters of a test, and mark all but the quick ones as slow.

    Args:
        quick: values that represent the others in `make test`.
        values: all values. A tuple has the values of several parameters.

    Raises:
        ValueError: a quick value is not among the values, so the test would never run with it.
    """
    values = list(values)
    missing = [value for value in quick if value not in values]
    if missing:
        raise ValueError(f"not among the parameters: {missing}")
    parameters = []
    for value in values:
        arguments = value if isinstance(value, tuple) else (value,)
        marks = () if value in quick else pytest.mark.slow
        parameters.append(pytest.param(*arguments, marks=marks))
    return parameters
