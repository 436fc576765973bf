"""Null models: compare with loops, and measure levels and power in simulated studies."""

import itertools

import numpy as np
import pytest
import scipy.stats
import simulated_studies
from tiers import slow_except

from plasticity.statistics import null_models
from plasticity.statistics.resampling import Draws

DRAWS = Draws(499)
SEEDS, TASKS = 5, 14


@pytest.fixture(scope="module")
def series():
    random = np.random.default_rng(0)
    x = random.normal(size=(2, SEEDS, TASKS)).cumsum(axis=-1)
    return x, random.normal(size=(3, SEEDS, TASKS))


def spearman(x, y):
    return scipy.stats.spearmanr(x, y).statistic


def test_product_of_standardized_ranks_is_spearmans_correlation_with_ties():
    random = np.random.default_rng(0)
    for x, y in random.integers(0, 6, (20, 2, 12)).astype(float):
        product = null_models.standardized_ranks(x) * null_models.standardized_ranks(y)
        assert product.sum() == pytest.approx(spearman(x, y), abs=1e-14)


def test_constant_series_is_standardized_to_nan():
    constant = np.full(5, 0.1)
    assert np.isnan(null_models.standardized_ranks(constant)).all()
    assert np.isnan(null_models.standardize(constant)).all()


def test_estimates_under_null_models_equal_loops_over_seeds(series):
    x, y = series
    estimates = null_models.compare_with_null_models(x, y, DRAWS, 0.3)
    for m, o in itertools.product(range(2), range(3)):
        x_deviations = x[m] - x[m].mean(axis=0)
        y_deviations = y[o] - y[o].mean(axis=0)
        of_deviations = []
        of_innovations = []
        for a, b in zip(x_deviations, y_deviations, strict=True):
            of_deviations.append(spearman(a, b))
            of_innovations.append(spearman(np.diff(a), np.diff(b)))
        pairs = np.array([[spearman(a, b) for b in y[o]] for a in x[m]])
        matched = np.trace(pairs) / SEEDS
        mismatched = (pairs.sum() - np.trace(pairs)) / (SEEDS * (SEEDS - 1))

        expected = {
            "task": np.mean(of_deviations),
            "differenced": np.mean(of_innovations),
            "mismatched": matched - mismatched,
        }
        for name, value in expected.items():
            assert estimates[name].value[m, o] == pytest.approx(value)

        error = scipy.stats.sem(of_deviations) * np.sqrt((SEEDS - 1) / (SEEDS - 2))
        t = np.mean(of_deviations) / error
        p = 2 * scipy.stats.t.sf(abs(t), SEEDS - 1)
        assert estimates["task"].p[m, o] == pytest.approx(p)

        orders = itertools.permutations(range(SEEDS))
        permuted = [np.mean(pairs[np.arange(SEEDS), order]) for order in orders]
        sizes = np.abs(np.array(permuted) - pairs.mean())
        p = (sizes >= sizes[0] - 1e-12).mean()
        assert estimates["mismatched"].p[m, o] == pytest.approx(p)


def test_circular_shift_test_equals_a_loop_over_shifts(series):
    x, y = (null_models.standardized_ranks(null_models.innovations(values)) for values in series)
    shifts = np.random.default_rng(0).integers(1, TASKS - 1, (40, SEEDS))
    shifts[0] = 0
    p = null_models._circular_shift_test(x, y, shifts)
    for m, o in itertools.product(range(2), range(3)):
        means = []
        for of_draw in shifts:
            correlations = [
                np.roll(y[o, seed], shift) @ x[m, seed] for seed, shift in enumerate(of_draw)
            ]
            means.append(np.mean(correlations))
        sizes = np.abs(means)
        sizes[0] /= null_models.error_inflation(SEEDS)
        assert p[m, o] == pytest.approx((sizes >= sizes[0] - 1e-12).mean())


def test_error_inflation_corrects_for_the_dependence_of_deviations():
    random = np.random.default_rng(0)
    x = null_models.deviations(random.normal(size=(4000, 6, 40)))
    y = null_models.deviations(random.normal(size=(4000, 6, 40)))
    per_seed = (null_models.standardize(x) * null_models.standardize(y)).sum(axis=-1)
    true_error = per_seed.mean(axis=1).std()
    naive_error = np.sqrt((per_seed.var(axis=1, ddof=1) / 6).mean())
    corrected_error = naive_error * null_models.error_inflation(6)
    assert corrected_error == pytest.approx(true_error, rel=0.05)


CASES = [("curves", 50), *((shape, 120) for shape in simulated_studies.SHAPES)]


@pytest.mark.parametrize(("shape", "studies"), slow_except([("curves", 50)], CASES))
def test_all_tests_but_the_naive_one_keep_their_level_under_a_shared_trend(shape, studies):
    tests = simulated_studies.TESTS | {"naive": simulated_studies.over_seeds}
    rates = simulated_studies.rejection_rates(tests, shape, studies, DRAWS)
    assert rates.pop("naive") > 0.4
    # One of 70 such tests exceeds this limit once in 30 runs.
    limit = 0.05 + 3.3 * np.sqrt(0.05 * 0.95 / studies)
    assert max(rates.values()) <= limit


def test_all_tests_find_a_simulated_relation():
    rates = simulated_studies.rejection_rates(
        simulated_studies.TESTS, "curves", 40, DRAWS, relation=0.4
    )
    assert rates.pop("lead and lag: Granger, outcome first") < 0.3
    assert min(rates.values()) > 0.9


def test_unknown_shape_of_a_simulated_study_is_refused():
    with pytest.raises(ValueError, match="unknown shape 'spiral'"):
        simulated_studies.simulate_study("spiral", np.random.default_rng(0), seeds=4, tasks=6)
