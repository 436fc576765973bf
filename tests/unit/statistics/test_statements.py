"""Sentences contain the numbers of their rows."""

import numpy as np
import pandas as pd
import pytest

from plasticity.statistics import statements


def population_row(measure, statistic="spearman", **numbers):
    row = {"measure": measure, "versus": "", "statistic": statistic, "settings": 60}
    numbers = {"estimate": -0.512, "low": -0.7, "high": -0.25, "p_adjusted": 0.0012} | numbers
    return row | numbers


def test_population_is_stated_for_every_measure_with_a_correlation():
    table = pd.DataFrame(
        [
            population_row("fisher_entropy_rank"),
            population_row("weight_norm", statistic="size_of_spearman"),
            population_row("dead_fraction", estimate=np.nan),
        ]
    )
    (row,) = statements._population(table)
    assert row["measure"] == "fisher_entropy_rank"
    assert row["statement"] == (
        "fisher entropy rank: over 60 settings, the correlation of its change and the change of "
        "the gap to a fresh network is ρ = -0.51 (95 % interval -0.70 to -0.25, adjusted p = "
        "0.0012)."
    )


def test_population_without_an_interval_says_so():
    table = pd.DataFrame([population_row("weight_norm", low=np.nan, high=np.nan)])
    (row,) = statements._population(table)
    assert "(no interval, adjusted p = 0.0012)" in row["statement"]


def test_counterexamples_are_stated_without_baselines_where_the_fate_of_an_arm_is_known():
    rows = [
        ("weight_norm", "none", "lost, and the measure is still", True),
        ("weight_norm", "l2", "kept, and nothing against the claim", False),
        ("weight_norm", "redo", "unclear", False),
        ("weight_norm", "fresh", "kept, and the measure moves as claimed", True),
        ("feature_rank", "none", "unclear", False),
    ]
    table = pd.DataFrame(rows, columns=["measure", "arm", "verdict", "counterexample"])
    (row,) = statements._counterexamples(table)
    assert row["statement"] == (
        "weight norm: 1 counter-example among 1 arms that lose plasticity, 0 among 1 that keep it; "
        "of 1 it is unclear."
    )


def test_consistency_of_a_constant_measure_is_not_stated():
    row = {"measure": "dead_fraction", "outcome": "final_error_gap", "association": "within_run"}
    table = pd.DataFrame([row | {"settings": 0, "note": "constant"}])
    assert list(statements._consistency(table)) == []


def ranked(statistic="auc_left_out", **values):
    """Make a row of the table `prediction` over the settings that lose plasticity."""
    row = {
        "setting": "all: lost",
        "outcome": "final_error_gap",
        "measure": "weight_norm",
        "statistic": statistic,
        "estimate": 0.65,
        "low": np.nan,
        "high": np.nan,
        "problems": 2,
        "note": "too few problems; of 4 settings",
    }
    return pd.DataFrame([row | values])


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        ({}, "(no interval: too few problems; of 4 settings that lose plasticity, 2 problems)."),
        (
            {"low": 0.5, "high": 0.75, "problems": 3, "note": "of 3 settings"},
            "(95 % interval 0.50 to 0.75; of 3 settings that lose plasticity, 3 problems).",
        ),
        (
            {"note": "a reason; of 4 settings"},
            "(no interval: a reason; of 4 settings that lose plasticity, 2 problems).",
        ),
    ],
    ids=["few problems", "interval", "another reason"],
)
def test_prediction_says_why_it_has_no_interval(values, ending):
    (row,) = statements._prediction(ranked(**values))
    assert row["statement"].endswith(f"its direction taken from other settings {ending}")


def treated_row(**values):
    """Make a row of the table `interventions`."""
    row = {
        "setting": "a_b",
        "arm": "none",
        "task": "all",
        "measure": "fisher_effective_rank",
        "outcome": "final_error",
        "statistic": "tau",
        "versus": "",
        "estimate": -0.591,
        "low": -0.7,
        "high": -0.48,
        "p_adjusted": 0.0021,
        "claim": -1,
        "treatments": 20,
        "worst_setting": "",
        "worst_estimate": np.nan,
        "note": "",
    }
    return row | values


def test_tau_of_the_primary_rank_is_stated_for_each_setting():
    over_settings = {"setting": "all", "worst_setting": "a_b", "worst_estimate": -0.59}
    table = pd.DataFrame(
        [
            treated_row(),
            treated_row(
                statistic="tau_without_harmful", estimate=-0.3, low=-0.4, high=-0.2, p_adjusted=0.01
            ),
            treated_row(setting="c_d", estimate=np.nan, note="constant over treatments"),
            treated_row(**over_settings, estimate=-0.6, low=np.nan, p_adjusted=np.nan),
            treated_row(task="4"),
            treated_row(outcome="online_error"),
            treated_row(measure="feature_rank"),
        ]
    )
    rows = list(statements._interventions(table, "fisher_effective_rank"))
    assert [row["statement"] for row in rows] == [
        (
            "a_b: among 20 treated copies of a checkpoint, τ of fisher effective rank and final "
            "error after the task is -0.59 (95 % interval -0.70 to -0.48, adjusted p = 0.0021); "
            "without harmful treatments it is -0.30 (95 % interval -0.40 to -0.20, adjusted "
            "p = 0.01)."
        ),
        "c_d: no τ over treated copies (constant over treatments).",
        (
            "over all settings: among 20 treated copies of a checkpoint, τ of fisher effective "
            "rank and final error after the task is -0.60 (no interval, not tested; worst: a_b "
            "(-0.59))."
        ),
    ]


def test_rival_is_the_measure_without_curvature_that_agrees_most_with_its_claim():
    table = pd.DataFrame(
        [
            treated_row(),
            treated_row(measure="fisher_entropy_rank", estimate=-0.9),
            treated_row(measure="feature_rank", estimate=-0.6),
            treated_row(measure="dead_fraction", estimate=0.5, claim=1),
            treated_row(measure="weight_norm", estimate=-0.8, claim=1),
            treated_row(measure="gradient_strength", estimate=-0.95, claim=0),
            treated_row(
                statistic="difference", versus="feature_rank", estimate=0.09, low=-0.1, high=0.28
            ),
        ]
    )
    (row,) = statements._rivals(table, "fisher_effective_rank")
    assert row["measure"] == "feature_rank"
    assert row["statement"] == (
        "a_b: of the measures without curvature, feature rank agrees most with its claim over "
        "treated copies (τ = -0.60); the agreement of fisher effective rank minus this one is "
        "+0.09 (95 % interval -0.10 to 0.28, adjusted p = 0.0021)."
    )


def test_counterexamples_of_treatments_are_counted_for_each_measure():
    kinds = ["not_necessary"] * 2 + ["both"] * 3 + ["not_sufficient", "neither", "unclear"]
    table = pd.DataFrame({"measure": "feature_rank", "outcome": "final_error", "kind": kinds})
    other = pd.DataFrame([{"measure": "x", "outcome": "online_error", "kind": "both"}])
    (row,) = statements._intervention_counterexamples(pd.concat([table, other]))
    assert row["statement"] == (
        "feature rank: of 5 treatments that restore plasticity, 2 do not restore the measure; of 4 "
        "that restore the measure, 1 does not restore plasticity (doses, tasks and settings "
        "counted one by one)."
    )
