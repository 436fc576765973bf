"""Describe why a job reruns: which file, package version or config key changed since its result."""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 3  # changes that `summarize` names; it counts the others
LONGEST = 60  # characters of a value that are shown in full
NOTHING = "nothing"


def describe_changes(before: set[str], now: set[str]) -> list[str]:
    """Describe how the params of a job changed.

    Args:
        before: params of the last run that are no longer used, as Snakemake records them.
        now: params that are new, in the same form.

    Returns:
        A phrase for each file, package and key: first the code, then the config, then other params.
    """
    old_code, old_settings, old_others = _sort_by_kind(before)
    new_code, new_settings, new_others = _sort_by_kind(now)
    changes = list(_compare_code(_flatten(old_code), _flatten(new_code)))
    changes += _compare_settings(_flatten(old_settings), _flatten(new_settings))
    if old_others or new_others:
        old = " ".join(map(str, old_others)) or NOTHING
        new = " ".join(map(str, new_others)) or NOTHING
        # a copied result has a reason among its old params, see `audit.annotate_metadata`
        changes.append(old if new == NOTHING else f"{_shorten(old)} → {_shorten(new)}")
    return changes


def summarize(phrases: list[str]) -> str:
    """Join the first phrases, and count the others."""
    text = ", ".join(phrases[:SHOWN])
    others = len(phrases) - SHOWN
    return f"{text} and {others} more" if others > 0 else text


def _sort_by_kind(params: set[str]) -> tuple[list[Any], list[Any], list[Any]]:
    """Parse params, and sort them into code digests, settings and others."""
    code, settings, others = [], [], []
    for text in sorted(params):
        value = _parse(text)
        if not isinstance(value, dict):
            others.append(value)
        elif any(key.endswith(".py") for key in value):
            code.append(value)
        else:
            settings.append(value)
    return code, settings, others


def _compare_code(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Describe the differences between two code digests."""
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{name} is new"
        elif name not in new:
            yield f"{name} is no longer used"
        elif old[name] != new[name] and name.endswith(".py"):
            yield f"{name} changed"
        elif old[name] != new[name]:
            yield f"{name}: {_shorten(old[name])} → {_shorten(new[name])}"


def _compare_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Describe the differences between two parts of a config."""
    for key in sorted({*old, *new}):
        if key in old and key in new and old[key] == new[key]:
            continue
        before = _shorten(old[key]) if key in old else NOTHING
        after = _shorten(new[key]) if key in new else NOTHING
        yield f"{key}: {before} → {after}"


def _flatten(values: list[Any], prefix: str = "") -> dict[str, Any]:
    """Merge nested mappings and lists into one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for value in values:
        children = value if isinstance(value, dict) else dict(enumerate(value))
        for key, child in children.items():
            dotted = f"{prefix}.{key}" if prefix else str(key)
            if isinstance(child, dict | list) and child:
                flat |= _flatten([child], dotted)
            else:
                flat[dotted] = child
    return flat


def _parse(text: str) -> Any:
    """Parse a param from the form in which Snakemake records it: the repr of, mostly, JSON."""
    value = ast.literal_eval(text)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _shorten(value: object) -> str:
    """Format a value, and cut out the middle if it is long."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
