"""The table of quantities: every row is computed somewhere, and is read as the row says."""

import typing

import pytest

from plasticity.config import quantities, registry
from plasticity.config.models import Hypothesis
from plasticity.config.quantities import Quantity, describe
from plasticity.curvature import displacement, gradient_measures, spectrum, unit_measures
from plasticity.provenance.code_digest import SCRIPTS, code_digest
from plasticity.statistics.summaries import OUTCOMES
from plasticity.training import outcomes

TABLE_FILE = "workflow/scripts/plasticity/config/quantities.py"


def test_every_measure_is_computed_and_every_computed_number_has_a_row():
    assert set(quantities.MEASURES) == {
        *unit_measures.TABLE,
        *gradient_measures.TABLE,
        displacement.NAME,
        "update_norm",
    }
    assert "update_norm" in outcomes.TABLE
    numbers = {*spectrum.meanings((0.99,)), "gradient_overlap"}
    assert set(quantities.SPECTRUM_NUMBERS) == numbers


def test_every_outcome_is_computed_and_can_be_in_a_hypothesis():
    assert set(quantities.OUTCOMES) <= set(OUTCOMES)
    choices = typing.get_args(typing.get_type_hints(Hypothesis)["outcome"])
    assert choices == tuple(quantities.OUTCOMES)


@pytest.mark.parametrize(
    "entry", ["prepare", "train", "tune", "choose", "curvature", "intervene", "gather"]
)
def test_jobs_that_compute_do_not_run_again_because_of_a_label(entry):
    named = [registry.path("methods", "l2"), registry.path("operators", "fisher")]
    assert TABLE_FILE not in code_digest(SCRIPTS / f"{entry}.py", named)
    assert TABLE_FILE in code_digest(SCRIPTS / "analyse.py")


@pytest.fixture
def own_operator(tmp_path, monkeypatch):
    """An operator of the user's own whose name begins like that of another."""
    path = tmp_path / "fisher_of_outputs.py"
    path.write_text('NAME = "Output Fisher"\n', encoding="utf-8")
    known = dict.fromkeys(registry.names("operators"))
    constant = registry.constant
    monkeypatch.setattr(registry, "names", lambda kind: [*known, path.stem])
    monkeypatch.setattr(
        registry,
        "constant",
        lambda kind, name, key: "Output Fisher" if name == path.stem else constant(kind, name, key),
    )
    return path.stem


def test_measure_is_named_by_its_operator(own_operator):
    assert quantities.one_line_name(f"{own_operator}_stable_rank") == "Output Fisher stable rank"
    assert quantities.one_line_name("fisher_stable_rank") == "Fisher stable rank"
    assert quantities.one_line_name("weight_norm") == "weight norm"
    assert quantities.one_line_name("final_error_gap") == "gap to a fresh network"


def test_ranks_are_those_of_operators():
    ranks = ("ggn_effective_rank", "fisher_entropy_rank", "hessian_stable_rank")
    assert all(map(quantities.is_rank, ranks))
    others = ("feature_rank", "fisher_epsilon_rank", "fisher_trace", "effective_rank")
    assert not any(map(quantities.is_rank, others))


@pytest.mark.parametrize(
    ("name", "sign", "is_share"),
    [
        ("ntk_entropy_rank", -1, False),
        ("feature_rank", -1, False),
        ("dead_fraction", 1, True),
        ("weight_norm", 1, False),
        ("hessian_negative_fraction", 0, True),
        ("fisher_trace", 0, False),
        ("final_error", 0, True),
    ],
)
def test_claim_and_scale_of_a_quantity(name, sign, is_share):
    assert describe(name).claimed_sign == sign
    assert describe(name).is_share == is_share


def test_quantity_without_a_row_has_its_name_and_no_claim():
    assert describe("sharpness_of_units") == Quantity("sharpness of units")
    assert describe("fisher_effective_rank_at_0_9") == Quantity("effective rank at 0 9")
