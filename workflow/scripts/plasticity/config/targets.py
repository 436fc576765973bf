"""Check the targets that a user gives to Snakemake, because its own message names no other."""

import re
from collections.abc import Sequence
from pathlib import Path

from plasticity.config import registry
from plasticity.config.spelling import hint
from plasticity.errors import StudyError

RULES = registry.LIBRARY.parents[1] / "rules"
RULE = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)*)", re.MULTILINE)
# rules that a loop makes, such as `name: f"figure_{name}"`
RULES_OF_LOOP = re.compile(r"name:\s+f\"(\w+)\{\w+\}\"")


def check_targets(targets: Sequence[str]) -> None:
    """Check that each target is a path or the name of a rule.

    Args:
        targets: as they are given to Snakemake.

    Raises:
        StudyError: for a name that is neither, with the closest known one.
    """
    if not targets:
        return
    files = [RULES.parents[1] / "Snakefile", *sorted(RULES.glob("*.smk"))]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    rules = dict(RULE.findall(text))
    of_loops = tuple(RULES_OF_LOOP.findall(text))
    for target in targets:
        is_rule = target in rules or target.startswith(of_loops)
        if is_rule or "/" in target or Path(target).exists():
            continue
        known = sorted(name for name, body in rules.items() if "    output:\n" not in body)
        raise StudyError(f"{target!r} is neither a target nor a file. {hint(target, known)}")
