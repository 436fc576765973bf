"""Power: compare with rejection rates in simulation, and with p values draw by draw."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import simulated_studies
from tiers import slow_except

from plasticity.statistics import comparisons, meta_analysis, power, resampling
from plasticity.statistics.resampling import Draws

DRAWS = Draws(399)


@pytest.mark.parametrize(("effect", "seeds"), [(0.1, 5), (0.5, 5), (0.5, 12), (2.0, 6)])
def test_power_of_a_t_test_is_its_rejection_rate(effect, seeds):
    values = effect + np.random.default_rng(0).normal(size=(20_000, seeds))
    test = scipy.stats.ttest_1samp(values, 0, axis=1)
    rate = ((test.pvalue <= 0.05) & (test.statistic > 0)).mean()
    computed = power.of_t_test(effect, 1 / np.sqrt(seeds), seeds - 1)
    assert computed == pytest.approx(rate, abs=4 * np.sqrt(0.25 / 20_000))


def test_power_is_1_for_a_huge_effect_and_missing_without_a_standard_error():
    assert power.of_t_test(1.0, 1e-9, 4) == pytest.approx(1)
    assert power.of_t_test(1.0, 0.0, 4) == pytest.approx(1)
    assert np.isnan(power.of_t_test(1.0, np.nan, 4))


@pytest.mark.parametrize(("seeds", "is_possible"), [(4, False), (5, False), (6, True), (9, True)])
def test_flips_of_signs_have_power_only_where_a_small_p_is_possible(seeds, is_possible):
    differences = 1 + 0.01 * np.random.default_rng(0).normal(size=seeds)
    p = comparisons._sign_flip_test([differences], DRAWS)
    assert (p <= 0.05) == is_possible
    assert power.of_sign_flips(1.0, [differences]) == pytest.approx(float(is_possible))


def test_power_of_flips_of_signs_over_settings_is_close_to_their_rejection_rate():
    random = np.random.default_rng(0)
    powers, is_rejected = [], []
    for _ in range(300):
        settings = [0.5 + random.normal(size=6), 0.5 + 2 * random.normal(size=8)]
        is_rejected.append(comparisons._sign_flip_test(settings, DRAWS) <= 0.05)
        powers.append(power.of_sign_flips(0.5, settings))
    assert np.mean(powers) == pytest.approx(np.mean(is_rejected), abs=0.1)


def test_critical_value_is_the_smallest_that_has_a_small_p():
    random = np.random.default_rng(0)
    for draws in (24, 120, 400):
        drawn = random.normal(size=(draws, 3))
        critical = power.critical_value(drawn)
        for index in range(draws):
            observed_first = np.roll(drawn, -index, axis=0)
            is_small = resampling.two_sided_p(observed_first) <= 0.05
            np.testing.assert_array_equal(is_small, abs(drawn[index]) >= critical)


def test_permutations_have_no_power_where_p_cannot_be_small():
    drawn = np.random.default_rng(0).normal(size=(19, 1))  # the smallest p is 1/19
    assert power.of_permutations(np.array([100.0]), drawn, np.ones(1)) == 0


CASES = [
    ("curves", 30),
    *((shape, 200) for shape in simulated_studies.SHAPES),
]


@pytest.mark.parametrize(("shape", "studies"), slow_except([("curves", 30)], CASES))
def test_mean_power_is_close_to_the_rejection_rate_or_below_it(shape, studies):
    rates, powers = simulated_studies.rates_and_powers(shape, studies, DRAWS, seeds=5)
    error = np.sqrt(0.25 / studies)
    for name, rate in rates.items():
        assert powers[name] <= rate + 0.1 + 2 * error, name


def test_power_over_problems_is_that_of_a_t_test_on_fishers_z():
    random = np.random.default_rng(0)
    powers, is_rejected = [], []
    for _ in range(200):
        z = np.arctanh(0.3) + 0.3 * random.normal(size=8)
        effects = pd.DataFrame({"z": z, "error": 0.1})
        row = meta_analysis._random_effects(effects, "", relevant=0.3)
        powers.append(row["power"])
        is_rejected.append(row["p"] <= 0.05)
    assert np.mean(powers) == pytest.approx(np.mean(is_rejected), abs=0.1)
