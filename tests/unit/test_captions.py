"""Captions and the report's first page say what is true of the study at hand."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def said(name, **changes):
    """A text of the report, as a study whose config differs in these keys has it."""
    template = (ROOT / "workflow" / "report" / f"{name}.rst").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return " ".join(environment.from_string(template).render(snakemake=SimpleNamespace(config=CONFIG | {"said": {}} | changes)).split())


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "workflow" / "report").glob("*.rst")))
@pytest.mark.parametrize("seeds", [{"report": 5}, {"tune": 0, "report": 5}, {"tune": 3, "report": 7}])
def test_each_text_can_be_made_of_a_config(name, seeds):
    assert "{" not in said(name, seeds=seeds)


def test_the_summary_speaks_of_ranks_only_where_it_has_them():
    curvature = CONFIG["curvature"]
    assert "and the effective rank (0.99) of the curvature" in said("table_summary")
    assert "rank" not in said("table_summary", curvature=curvature | {"moments": ["old"]})


def test_the_first_page_says_which_seeds_trained_what():
    assert "Every arm was trained with 5 seeds." in said("workflow", seeds={"tune": 0, "report": 5})
    tuned = said("workflow", seeds={"tune": 3, "report": 7})
    assert "very arm was trained" not in tuned
    assert "3 tuning seeds chose one; what is reported was trained with 7 other seeds." in tuned
