"""Sentences contain the numbers of their rows."""

import numpy as np
import pandas as pd

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
        "fisher entropy rank: over 60 settings its change goes with that of the gap to a fresh "
        "network with ρ = -0.51 (95 % interval -0.70 to -0.25, adjusted p = 0.0012)."
    )


def test_population_without_an_interval_says_so():
    table = pd.DataFrame([population_row("weight_norm", low=np.nan, high=np.nan)])
    (row,) = statements._population(table)
    assert "(no interval, adjusted p = 0.0012)" in row["statement"]
