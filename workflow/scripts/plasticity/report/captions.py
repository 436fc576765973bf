"""Write the texts that captions and the first page of the report quote.

They are the study's sentences, its budget, and the meaning of lines, bands and operators.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pandas as pd
from docutils.core import publish_parts

from plasticity.config import registry

LISTED_BUDGETS = 3  # if settings have more budgets than this, the table of settings lists them


def quoted(config: Mapping[str, Any], statements: pd.DataFrame) -> dict[str, str]:
    """Write the texts that templates quote as ``snakemake.config["quoted"]``.

    Args:
        config: of the study.
        statements: the table of statements.

    Returns:
        Texts in reStructuredText by name: for each table and figure a list of its sentences,
        ``result`` (the sentences of the first page, which no other list repeats), ``budget``,
        ``band`` and ``operators``.
    """
    is_ranked = statements["rank"].notna()
    texts = {
        str(about): _bullet_list(rows["statement"])
        for about, rows in statements[~is_ranked].groupby("about", sort=False)
    }
    texts["result"] = _bullet_list(statements[is_ranked].sort_values("rank")["statement"])
    texts["budget"] = budget(config)
    texts["band"] = band(config)
    texts["operators"] = operators(config)
    return texts


def versions(trained_with: Sequence[Mapping[str, str]], drawn_with: Mapping[str, str]) -> str:
    """Name the software that trained and measured, and the software that tested and drew.

    Args:
        trained_with: versions by package, for each dataset.
        drawn_with: versions by package.
    """
    distinct = dict.fromkeys(_name_versions(packages) for packages in trained_with)
    training = "; or ".join(distinct)
    drawing = _name_versions(drawn_with)
    return f"Trained and measured with {training}; tested and drawn with {drawing}."


def _name_versions(packages: Mapping[str, str]) -> str:
    """List packages with their versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def format_table(rows: pd.DataFrame) -> str:
    """Format a small table as a paragraph of its own."""
    lines = rows.to_csv(index=False, float_format="%.3g").splitlines()
    indented = "\n".join(f"   {line}" for line in lines)
    return f"\n\n.. csv-table::\n   :header-rows: 1\n\n{indented}\n\n"


def budget(config: Mapping[str, Any]) -> str:
    """State the number of tasks and the training per task."""
    budgets = dict.fromkeys(
        _problem_budget(setting["problem"]) for setting in config["settings"].values()
    )
    if len(budgets) > LISTED_BUDGETS:
        return "The table of settings lists the budgets."
    return f"Budget: {'; or '.join(budgets)}."


def _problem_budget(problem: Mapping[str, Any]) -> str:
    """State the number of tasks of a problem and the training per task."""
    steps = problem.get("steps_per_task")
    length = f"{steps:,} steps" if steps else f"{problem['epochs']:,} epochs"
    images = f"{problem['samples']:,} images in batches of {problem['batch']:,}"
    return f"{problem['tasks']:,} tasks, each {length} on {images}"


def band(config: Mapping[str, Any]) -> str:
    """State what lines and bands in figures are."""
    seeds = config["seeds"]["report"]
    if seeds == 1:
        return "Line: the only seed, so there is no band."
    return (
        f"Line: mean over {seeds} seeds. Band: 95 % interval (Student's t) of that mean; it may"
        " reach beyond the panel."
    )


def operators(config: Mapping[str, Any]) -> str:
    """State what each operator of the study is."""
    sentences = []
    for operator in config["curvature"]["operators"]:
        name = registry.constant("operators", operator, "NAME") or operator
        meaning = registry.constant("operators", operator, "MEANING")
        sentences.append(f"{name}: {meaning}.")
    return " ".join(sentences)


def _bullet_list(sentences: pd.Series) -> str:
    """Format sentences as a list that is a paragraph of its own."""
    return "\n\n" + "\n".join(f"- {as_plain_text(text)}" for text in sentences) + "\n\n"


def as_plain_text(text: str) -> str:
    """Escape a text, so that reStructuredText shows it as it is: no links, roles or directives."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([^\w\s.,;()%=+-]|_)", r"\\\1", one_line)
    # An escaped space is not shown, and what follows it begins no list and no directive.
    return f"\\ {escaped}"


def html(path: Path, config: Mapping[str, Any]) -> str:
    """Render a caption as Snakemake's report does.

    Args:
        path: of the caption, a Jinja template of reStructuredText.
        config: of the study, with ``quoted``.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string(path.read_text(encoding="utf-8"))
    text = template.render(snakemake=SimpleNamespace(config=config))
    settings = {"report_level": 5, "raw_enabled": False, "file_insertion_enabled": False}
    return str(publish_parts(text, writer="html5", settings_overrides=settings)["body"])
