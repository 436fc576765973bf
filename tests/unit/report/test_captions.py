"""Captions and the first page of the report match the config and the statements of the study."""

import html
import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pandas as pd
import pytest
import yaml

from plasticity.config import registry
from plasticity.report import captions

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "workflow" / "report"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
STATEMENTS = pd.DataFrame(
    [
        ("counterexamples", "fisher_effective_rank", "", 2, "The rank falls."),
        ("outcomes", "", "", 1, "Plasticity is lost in 1 of 1 setting."),
        ("consistency", "weight_norm", "", np.nan, "The norm is consistent."),
        ("loss", "", "a_b_c", np.nan, "a_b_c: plasticity is lost."),
        ("scatter", "fisher_effective_rank", "a_b_c", np.nan, "a_b_c: ρ = -0.50."),
        ("counterexamples", "dead_fraction", "", np.nan, "One counter-example."),
    ],
    columns=["about", "measure", "setting", "rank", "statement"],
)


def with_quotes(config):
    """Add to a config what captions quote."""
    return config | {"quoted": captions.quoted(config, STATEMENTS)}


def render(name, **changes):
    """Render a text of the report for the default config with these keys changed."""
    config = with_quotes(CONFIG | changes)
    template = (REPORT / f"{name}.rst").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    text = environment.from_string(template).render(snakemake=SimpleNamespace(config=config))
    return " ".join(text.split())


@pytest.mark.parametrize("name", sorted(path.stem for path in REPORT.glob("*.rst")))
@pytest.mark.parametrize(
    "seeds", [{"report": 5}, {"tune": 0, "report": 5}, {"tune": 3, "report": 7}]
)
def test_every_text_renders(name, seeds):
    assert "{" not in render(name, seeds=seeds)
    captions.html(REPORT / f"{name}.rst", with_quotes(CONFIG | {"seeds": seeds}))


@pytest.mark.parametrize("name", registry.names("figures"))
def test_every_figure_caption_states_seeds_budget_and_bands(name):
    text = render(f"figure_{name}", seeds={"report": 7})
    assert "7 seeds" in text
    assert "40 tasks, each 10 epochs on 1,280 images in batches of 64" in text
    assert any(words in text for words in ("95 % interval", "without bands", "quartiles"))


def test_caption_states_that_one_seed_has_no_band():
    assert "the only seed, so there is no band" in render("figure_curvature", seeds={"report": 1})
    assert "the only seed" not in render("figure_curvature", seeds={"report": 2})


def test_few_budgets_are_listed_and_many_are_left_to_the_table():
    problem = CONFIG["settings"]["digits_labels_relu"]["problem"]
    settings = {f"a_b_{k}": {"problem": problem | {"tasks": k + 1}} for k in range(4)}
    two = {name: settings[name] for name in ("a_b_0", "a_b_1")}
    assert captions.budget({"settings": two}) == (
        "Budget: 1 tasks, each 10 epochs on 1,280 images in batches of 64;"
        " or 2 tasks, each 10 epochs on 1,280 images in batches of 64."
    )
    assert captions.budget({"settings": settings}) == "The table of settings lists the budgets."


def test_budget_in_steps_is_stated_in_steps():
    problem = CONFIG["settings"]["digits_labels_relu"]["problem"]
    settings = {"a": {"problem": problem | {"steps_per_task": 5000}}}
    assert "each 5,000 steps on" in captions.budget({"settings": settings})


def test_operator_caption_explains_the_operators_of_the_study_only():
    curvature = CONFIG["curvature"] | {"operators": ["ntk"]}
    text = render("figure_operators", curvature=curvature)
    assert f"NTK: {registry.constant('operators', 'ntk', 'MEANING')}." in text
    assert "GGN" not in text


def test_summary_mentions_ranks_only_if_it_has_them():
    curvature = CONFIG["curvature"] | {"evaluation_points": ["previous"]}
    assert "and the effective rank (0.99) of the curvature" in render("table_summary")
    assert "rank" not in render("table_summary", curvature=curvature)


def test_first_page_states_which_seeds_trained_what():
    untuned = render("workflow", seeds={"tune": 0, "report": 5})
    assert "Every arm was trained with 5 seeds" in untuned
    tuned = render("workflow", seeds={"tune": 3, "report": 7})
    assert "very arm was trained" not in tuned
    assert "3 tuning seeds selected one. Reported results are from 7 other seeds." in tuned


def test_first_page_has_the_ranked_sentences_in_their_order():
    text = render("workflow")
    first, second = "Plasticity is lost in 1 of 1 setting.", "The rank falls."
    assert text.index(first) < text.index(second)
    for other in set(STATEMENTS["statement"]) - {first, second}:
        assert other not in text


def test_captions_have_the_other_sentences_about_their_table():
    text = render("table_counterexamples")
    assert "One counter-example." in text
    assert "The rank falls." not in text
    assert "ρ = -0.50." in render("figure_scatter")


def test_sentences_become_a_list_in_html():
    page = captions.html(REPORT / "figure_scatter.rst", with_quotes(CONFIG))
    assert "<li>" in page
    assert "a_b_c: ρ = -0.50." in page


def test_small_table_becomes_a_table_in_html(tmp_path):
    template = "**Cost**:\n{{ snakemake.config['quoted']['cost'] }}\nThe end.\n"
    (tmp_path / "a.rst").write_text(template)
    cost = captions.format_table(pd.DataFrame({"stage": ["train"], "largest MB": [1234.5678]}))
    page = captions.html(tmp_path / "a.rst", {"quoted": {"cost": cost}})
    assert "<table" in page
    assert "1.23e+03" in page
    assert "The end." in page


def test_different_versions_are_all_named():
    text = captions.versions([{"torch": "1"}, {"torch": "2"}, {"torch": "1"}], {"scipy": "3"})
    assert text == "Trained and measured with torch 1; or torch 2; tested and drawn with scipy 3."


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`click <javascript:alert(1)>`_",
    "javascript:alert(1)",
    ".. raw:: html\n\n   <b>bold</b>",
    "x\n\n.. include:: /etc/passwd\n",
    ":raw-html:`<b>`",
    "|substitution| *emphasis* **strong** ``literal`` link_ [1]_ \\ {{ config }} {% if %}",
    "- a list",
    "http://example.org/",
    "ρ = -0.92 (95 % interval -0.97 to -0.88, 5 seeds)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_user_is_shown_as_it_is(text, tmp_path):
    rows = pd.DataFrame([("loss", "", "", 1, text)], columns=STATEMENTS.columns)
    quoted = captions.quoted(CONFIG, rows)
    template = tmp_path / "caption.rst"
    template.write_text('{{ snakemake.config["quoted"]["result"] }}')
    page = captions.html(template, {"quoted": quoted})
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert " ".join(shown.split()) == " ".join(text.split())
    tags = set(re.findall(r"<(\w+)", page))
    assert tags <= {"main", "ul", "li", "p"}, page
