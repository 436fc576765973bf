"""Lengthening of a grid: arms next to the best one, if this one lies at an end of its values."""

from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config import registry
from plasticity.config.models import parts

Arm = Mapping[str, Any]


def arms_beyond(method: str, arms: Sequence[Arm], best: Arm) -> list[dict[str, Any]]:
    """Return the arms that continue a grid next to its best arm.

    Each differs from the best arm in one hyperparameter, for which the best arm has the smallest or
    the largest of at least two values. The new value keeps the ratio to the next one, because grids
    are spaced by ratios: 0.01, 0.1 goes on with 1.

    Args:
        method: name of the method.
        arms: all arms of the grid, hyperparameters by name.
        best: one of the arms.

    Returns:
        New arms. There is none for texts, for an end at 0, beyond the largest allowed value, and
        where whole numbers have no next one.
    """
    added = []
    for name, end in best.items():
        values = sorted({arm[name] for arm in arms if not isinstance(arm[name], str)})
        if len(values) < 2 or end not in (values[0], values[-1]):
            continue
        neighbour = values[1] if end == values[0] else values[-2]
        value = _next_value(method, name, end, neighbour)
        if value is not None:
            added.append({**best, name: value})
    return added


def _next_value(method: str, name: str, end: float, neighbour: float) -> float | None:
    """Continue a geometric series by one value, or return None if it cannot go on."""
    if end == 0 or neighbour == 0:
        return None
    # Twelve digits hide the rounding of the division: 0.1² / 0.01 is 1.
    value = float(f"{end / neighbour * end:.12g}")
    maximum, is_whole = _limits(method, name)
    if is_whole:
        value = round(value)
    return None if value in (0, end) or value > maximum else value


def _limits(method: str, name: str) -> tuple[float, bool]:
    """Return the largest allowed value of a hyperparameter, and whether it must be whole."""
    part, _, own_name = name.rpartition(".")
    file = part or parts(method)[0]
    maximum = (registry.constant("methods", file, "AT_MOST") or {}).get(own_name, float("inf"))
    is_whole = own_name in (registry.constant("methods", file, "WHOLE") or ())
    return maximum, is_whole
