"""Check the targets that a user gives to Snakemake, because its own message names no other."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from plasticity.config import registry
from plasticity.errors import StudyError

RULES = registry.LIBRARY.parents[1] / "rules"
RULE = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)*)", re.MULTILINE)


def check_targets(targets: Sequence[str]) -> None:
    """Check that each target is a path or the name of a rule.

    Args:
        targets: as they are given to Snakemake.

    Raises:
        StudyError: for a name that is neither, with the closest known one.
    """
    rules = _rules()
    for target in targets:
        if target in rules or "/" in target or Path(target).exists():
            continue
        known = sorted(name for name, body in rules.items() if "    output:\n" not in body)
        close = difflib.get_close_matches(target, known, n=1)
        suggestion = f"Did you mean {close[0]!r}? " if close else ""
        raise StudyError(
            f"{target!r} is neither a target nor a file. {suggestion}Targets: {', '.join(known)}."
        )


def _rules() -> dict[str, str]:
    """Read the text of each rule, by its name."""
    files = [RULES.parents[1] / "Snakefile", *sorted(RULES.glob("*.smk"))]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return {name: body for text in texts for name, body in RULE.findall(text)}
