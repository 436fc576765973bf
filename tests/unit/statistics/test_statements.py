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
