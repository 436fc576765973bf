"""Level, power and coverage of the tests of interventions, in fewer studies than the benchmark."""

import numpy as np
import pytest
import simulated_interventions as simulated

pytestmark = pytest.mark.slow

STUDIES = 200
# Three standard errors above 5 % of the studies.
HIGHEST_LEVEL = 5 + 3 * 100 * np.sqrt(0.05 * 0.95 / STUDIES)
LOWEST_COVERAGE = 95 - 3 * 100 * np.sqrt(0.05 * 0.95 / STUDIES)


@pytest.mark.parametrize("case", ["single copies", "doses", "inert treatments"])
def test_level_and_coverage_of_tau(case):
    rates = simulated.rates_of_tau(case, 5, STUDIES)
    assert rates.percent("treatments") <= HIGHEST_LEVEL
    assert rates.percent("covered") >= LOWEST_COVERAGE
    # The tests that we do not use are wrong far more often.
    assert rates.percent("seeds") > 30
    if case != "single copies":
        assert rates.percent("copies") > HIGHEST_LEVEL


def test_families_that_agree_by_chance_raise_the_level():
    rates = simulated.rates_of_tau("families", 5, STUDIES)
    assert 5 < rates.percent("treatments") < 20


@pytest.mark.parametrize(("case", "correlation"), [("single copies", 0.5), ("doses", 0.5)])
def test_printed_power_is_the_rejection_rate_at_the_relevant_tau(case, correlation):
    rates = simulated.rates_of_tau(case, 5, STUDIES, correlation)
    assert rates.counts["tau"] / STUDIES == pytest.approx(simulated.RELEVANT, abs=0.03)
    assert rates.percent("treatments") == pytest.approx(rates.percent("power"), abs=12)


@pytest.mark.parametrize("case", ["single copies", "doses"])
def test_level_and_power_of_a_difference(case):
    assert simulated.rates_of_difference(case, 5, STUDIES).percent("treatments") <= HIGHEST_LEVEL
    better = simulated.rates_of_difference(case, 5, STUDIES, advantage=0.8)
    assert better.percent("treatments") > 20


@pytest.mark.parametrize("case", ["single copies", "doses"])
def test_level_and_power_of_what_a_rank_adds(case):
    assert simulated.rates_of_added(case, 5, STUDIES).percent("treatments") <= HIGHEST_LEVEL
    assert simulated.rates_of_added(case, 5, STUDIES, weight=1.0).percent("treatments") > 60


def test_level_of_families_depends_on_the_error_of_the_measure():
    one_curve = simulated.rates_of_family(5, STUDIES, noise=0.1, offset=0.0)
    assert one_curve.percent("treatments") <= HIGHEST_LEVEL
    noisy = simulated.rates_of_family(5, STUDIES, noise=1.0, offset=0.0)
    assert noisy.percent("treatments") > 40


def test_coverage_of_indirect_effects_holds_under_the_assumptions_only():
    assert simulated.coverage_of_mediation(5, STUDIES) >= LOWEST_COVERAGE
    assert simulated.coverage_of_mediation(5, STUDIES, confounding=0.5) < 85
