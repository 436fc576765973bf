"""What captions and the report's first page quote: the study's sentences, its budget, and what lines and bands are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pandas as pd
from docutils.core import publish_parts

FIRST_PAGE = {  # what it says, in this order, and of which measures: all where none is named
    "loss": (),
    "hypotheses": (),
    "counterexamples": (
        "_effective_rank",
        "feature_rank",
        "dormant_fraction",
        "dead_fraction",
        "weight_norm",
    ),
    "consistency": ("_effective_rank",),
}
MANY = 3  # budgets: more than these are left to the table of settings


def said(config: Mapping[str, Any], statements: pd.DataFrame) -> dict[str, str]:
    """Pieces of text, each reStructuredText, by name.

    Args:
        config: of the study.
        statements: the table.

    Returns:
        The sentences about each table and figure as a list; ``result``, those of the first page; ``budget``, ``band``.
    """
    lists = {
        str(about): _list(found["statement"])
        for about, found in statements.groupby("about", sort=False)
    }
    of = [
        (statements[statements["about"] == about], measures)
        for about, measures in FIRST_PAGE.items()
    ]
    result = [
        found[found["measure"].str.endswith(measures or "")]["statement"] for found, measures in of
    ]
    return lists | {
        "result": _list(pd.concat(result)),
        "budget": budget(config),
        "band": band(config),
    }


def versions(made_with: Sequence[Mapping[str, str]], drawn_with: Mapping[str, str]) -> str:
    """Which software trained and measured, and which tested and drew.

    Args:
        made_with: versions by package, of every dataset.
        drawn_with: versions by package.
    """
    made = "; or ".join(dict.fromkeys(_versions(one) for one in made_with))
    return f"Trained and measured with {made}; tested and drawn with {_versions(drawn_with)}."


def _versions(packages: Mapping[str, str]) -> str:
    """In words."""
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def table(rows: pd.DataFrame) -> str:
    """A small table, apart from what stands before it."""
    lines = rows.to_csv(index=False, float_format="%.3g").splitlines()
    return (
        "\n\n.. csv-table::\n   :header-rows: 1\n\n"
        + "\n".join(f"   {line}" for line in lines)
        + "\n\n"
    )


def budget(config: Mapping[str, Any]) -> str:
    """How much training there is: tasks, and what each task takes."""
    found = dict.fromkeys(_budget(setting["problem"]) for setting in config["settings"].values())
    return (
        f"Budget: {'; or '.join(found)}."
        if len(found) <= MANY
        else "Budgets: the table of settings has them."
    )


def _budget(problem: Mapping[str, Any]) -> str:
    """That of a problem."""
    steps = problem.get("steps_per_task")
    each = f"{steps:,} steps" if steps else f"{problem['epochs']:,} epochs"
    return f"{problem['tasks']:,} tasks, each {each} on {problem['samples']:,} images in batches of {problem['batch']:,}"


def band(config: Mapping[str, Any]) -> str:
    """What lines and bands are."""
    seeds = config["seeds"]["report"]
    if seeds == 1:
        return "Line: the only seed, so there is no band."
    return f"Line: mean over {seeds} seeds; band: 95 % interval (Student's t) of that mean, which may leave the panel."


def _list(sentences: pd.Series) -> str:
    """Sentences as a list, apart from what stands before it."""
    return "\n\n" + "\n".join(f"- {sentence}" for sentence in sentences) + "\n\n"


def html(path: Path, config: Mapping[str, Any]) -> str:
    """A caption as Snakemake's report would show it.

    Args:
        path: of the caption, a Jinja template of reStructuredText.
        config: of the study, with ``said``.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    text = environment.from_string(path.read_text(encoding="utf-8")).render(
        snakemake=SimpleNamespace(config=config)
    )
    return str(publish_parts(text, writer="html5", settings_overrides={"report_level": 5})["body"])
