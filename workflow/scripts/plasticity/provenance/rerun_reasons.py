"""Why a job would run: which file, function's file, package or key of the config is another than when its result was made."""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 3  # changes, and jobs before, that are named; of more it is said how many


def of_params(before: set[str], now: set[str]) -> list[str]:
    """What differs between the params of a job when it ran and now.

    Args:
        before: those of Snakemake's record that are no longer there, as it writes them.
        now: those that were not.

    Returns:
        a sentence's part for each file, package and key.
    """
    olds, news = ([_value(one) for one in sorted(some)] for some in (before, now))
    code = [[one for one in some if _is_code(one)] for some in (olds, news)]
    keys = [
        [one for one in some if isinstance(one, dict) and not _is_code(one)]
        for some in (olds, news)
    ]
    rest = [[one for one in some if not isinstance(one, dict)] for some in (olds, news)]
    found = list(_changes(_flat(code[0]), _flat(code[1]), digests=True)) + list(
        _changes(_flat(keys[0]), _flat(keys[1]))
    )
    if rest != [[], []]:
        old, new = (" ".join(map(str, some)) or "nothing" for some in rest)
        found.append(f"{_short(old)} → {_short(new)}")
    return found


def told(parts: list[str]) -> str:
    """The first parts, and how many more there are."""
    return ", ".join(parts[:SHOWN]) + (
        f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    )


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], digests: bool = False
) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if key not in old:
            yield f"{key} is new" if digests else f"{key}: nothing → {_short(new[key])}"
        elif key not in new:
            yield f"{key} is no longer used" if digests else f"{key}: {_short(old[key])} → nothing"
        elif old[key] != new[key]:
            yield (
                f"{key} changed"
                if digests and key.endswith(".py")
                else f"{key}: {_short(old[key])} → {_short(new[key])}"
            )


def _is_code(value: object) -> bool:
    return isinstance(value, dict) and any(key.endswith(".py") for key in value)


def _flat(values: list[Any], at: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings and lists, all together."""
    found: dict[str, Any] = {}
    for value in values:
        inner = value if isinstance(value, dict) else dict(enumerate(value))
        for key, one in inner.items():
            dotted = f"{at}.{key}" if at else str(key)
            found |= _flat([one], dotted) if isinstance(one, dict | list) and one else {dotted: one}
    return found


def _value(written: str) -> Any:
    """A param from the form in which Snakemake records it."""
    value = ast.literal_eval(written)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]} … {text[-28:]}"
