"""Captions and the report's first page say what is true of the study at hand."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
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
        ("consistency", "fisher_effective_rank", "", "The rank is consistent."),
        ("consistency", "weight_norm", "", "So is the norm."),
        ("loss", "", "a_b_c", "a_b_c: plasticity is lost."),
        ("scatter", "fisher_effective_rank", "a_b_c", "a_b_c: ρ = -0.50."),
        ("counterexamples", "dead_fraction", "", "One counter-example."),
    ],
    columns=["about", "measure", "setting", "statement"],
)


def said(name, **changes):
    """A text of the report, as a study whose config differs in these keys has it."""
    config = CONFIG | changes
    config |= {"said": captions.said(config, STATEMENTS)}
    template = (REPORT / f"{name}.rst").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return " ".join(
        environment.from_string(template).render(snakemake=SimpleNamespace(config=config)).split()
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in REPORT.glob("*.rst")))
@pytest.mark.parametrize(
    "seeds", [{"report": 5}, {"tune": 0, "report": 5}, {"tune": 3, "report": 7}]
)
def test_each_text_can_be_made_of_a_config(name, seeds):
    assert "{" not in said(name, seeds=seeds)
    captions.html(
        REPORT / f"{name}.rst",
        CONFIG | {"seeds": seeds} | {"said": captions.said(CONFIG | {"seeds": seeds}, STATEMENTS)},
    )


@pytest.mark.parametrize("name", registry.names("figures"))
def test_every_figure_says_its_seeds_its_budget_and_what_its_bands_are(name):
    text = said(f"figure_{name}", seeds={"report": 7})
    assert "7 seeds" in text
    assert "40 tasks, each 10 epochs on 1,280 images in batches of 64" in text
    assert any(word in text for word in ("95 % interval", "without bands", "quartiles"))


def test_one_seed_has_no_band_and_that_is_said():
    assert "the only seed, so there is no band" in said("figure_curvature", seeds={"report": 1})
    assert "the only seed" not in said("figure_curvature", seeds={"report": 2})


def test_budgets_that_differ_are_said_each_and_too_many_are_left_to_the_table():
    problem = CONFIG["settings"]["digits_labels_relu"]["problem"]
    settings = {f"a_b_{k}": {"problem": problem | {"tasks": k + 1}} for k in range(4)}
    two = captions.budget({"settings": {name: settings[name] for name in ("a_b_0", "a_b_1")}})
    assert two == (
        "Budget: 1 tasks, each 10 epochs on 1,280 images in batches of 64; or 2 tasks, each 10 epochs on 1,280 images in batches of 64."
    )
    assert captions.budget({"settings": settings}) == "Budgets: the table of settings has them."
    steps = {"a": {"problem": problem | {"steps_per_task": 5000}}}
    assert "each 5,000 steps on" in captions.budget({"settings": steps})


def test_the_summary_speaks_of_ranks_only_where_it_has_them():
    curvature = CONFIG["curvature"]
    assert "and the effective rank (0.99) of the curvature" in said("table_summary")
    assert "rank" not in said(
        "table_summary", curvature=curvature | {"evaluation_points": ["previous"]}
    )


def test_the_first_page_says_which_seeds_trained_what():
    assert "Every arm was trained with 5 seeds" in said("workflow", seeds={"tune": 0, "report": 5})
    tuned = said("workflow", seeds={"tune": 3, "report": 7})
    assert "very arm was trained" not in tuned
    assert "3 tuning seeds chose one; what is reported was trained with 7 other seeds." in tuned


def test_the_first_page_has_the_result_first_what_was_lost_then_what_explains_it():
    text = said("workflow")
    places = [
        text.index(sentence)
        for sentence in ("plasticity is lost.", "One counter-example.", "The rank is consistent.")
    ]
    assert places == sorted(places)
    assert "So is the norm." not in text, "of the meta-analysis, only what the study is about"
    assert "a_b_c: ρ" not in text
    assert "- a_b_c: ρ = -0.50." in said("figure_scatter")


def test_sentences_are_a_list_in_the_page():
    html = captions.html(
        REPORT / "figure_scatter.rst", CONFIG | {"said": captions.said(CONFIG, STATEMENTS)}
    )
    assert "<li>" in html
    assert "ρ = -0.50." in html


def test_a_small_table_is_a_table_in_the_page(tmp_path):
    (tmp_path / "a.rst").write_text("**Cost**:\n{{ snakemake.config['said']['cost'] }}\nThe end.\n")
    cost = captions.table(pd.DataFrame({"stage": ["train"], "largest MB": [1234.5678]}))
    html = captions.html(tmp_path / "a.rst", {"said": {"cost": cost}})
    assert "<table" in html
    assert "1.23e+03" in html
    assert "The end." in html


def test_versions_that_differ_are_both_named():
    text = captions.versions([{"torch": "1"}, {"torch": "2"}, {"torch": "1"}], {"scipy": "3"})
    assert text == "Trained and measured with torch 1; or torch 2; tested and drawn with scipy 3."
