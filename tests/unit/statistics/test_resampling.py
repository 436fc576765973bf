"""Bootstrap, permutations and signs: compare with scipy and exact distributions, and simulate."""

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import associations, resampling
from plasticity.statistics.resampling import Draws

DRAWS = Draws(1999)


def test_resampled_sums_of_binary_values_are_binomial():
    values = np.array([1.0] * 6 + [0.0] * 4)
    sums = Draws(20_000).counts(10) @ values
    expected = scipy.stats.binom(10, 0.6).pmf(np.arange(11)) * len(sums)
    observed = np.bincount(sums.astype(int), minlength=11)
    # Merge the rare sums 0, 1 and 2.
    observed = np.array([observed[:3].sum(), *observed[3:]])
    expected = np.array([expected[:3].sum(), *expected[3:]])
    assert scipy.stats.chisquare(observed, expected).pvalue > 0.001


def scipy_bca(values, resamples):
    bootstrap = scipy.stats.bootstrap((values,), np.mean, n_resamples=resamples, rng=1)
    return bootstrap.confidence_interval


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2,), (9,), (5, 5), (3, 40)])
def test_students_interval_equals_that_of_scipy_to_the_bit(shape, dtype):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    seeds = shape[-1]
    reach = scipy.stats.t.ppf(0.975, seeds - 1) * scipy.stats.sem(values, axis=-1)
    low, high = resampling.t_interval(values)
    np.testing.assert_array_equal(low, values.mean(axis=-1) - reach)
    np.testing.assert_array_equal(high, values.mean(axis=-1) + reach)


@pytest.mark.parametrize("seeds", [8, 25])
def test_bca_interval_without_expansion_equals_that_of_scipy(monkeypatch, seeds):
    """With 8 seeds, an interval without the factor √(n/(n − 1)) is 7 % narrower than scipy's."""
    values = np.random.default_rng(0).exponential(size=seeds)

    def quantile_without_expansion(share, freedom):
        return scipy.stats.norm.ppf(share) / np.sqrt(seeds / (seeds - 1))

    monkeypatch.setattr(resampling.stats.t, "ppf", quantile_without_expansion)
    statistic = resampling.mean_over_seeds(values)
    interval = np.ravel(resampling.bca(statistic, seeds, Draws(40_000)))
    np.testing.assert_allclose(interval, scipy_bca(values, 40_000), atol=0.02 * values.std())


def test_expanded_interval_is_wider_than_that_of_scipy():
    values = np.random.default_rng(0).normal(size=10)
    low, high = resampling.bca(resampling.mean_over_seeds(values), 10, DRAWS)
    expected = scipy_bca(values, 1999)
    assert low[0] < expected.low
    assert high[0] > expected.high


@pytest.mark.parametrize("seed", range(10))
def test_interval_contains_its_estimate_or_is_nan(seed):
    """One seed alone differs in x. Its rank in y decides whether resamples give an interval."""
    x = np.eye(10)[[seed]]
    y = np.arange(10.0)[None]
    statistic = associations.correlation_over_seeds(x, y, rank=True)
    low, high = resampling.bca(statistic, 10, DRAWS)
    is_extreme = seed in (0, 9)
    assert np.isnan([low, high]).all() == is_extreme
    assert is_extreme or low <= statistic(np.ones((1, 10)))[0] <= high


@pytest.mark.parametrize("seeds", [10, 30])
@pytest.mark.parametrize("distribution", ["normal", "correlations"])
def test_intervals_cover_in_93_to_97_of_100_studies(seeds, distribution):
    random = np.random.default_rng(seeds)
    values = random.normal(size=(2000, seeds))
    truth = 0.0
    if distribution == "correlations":
        truth = np.tanh(0.8 + 0.5 * random.normal(size=10**6)).mean()
        values = np.tanh(0.8 + 0.5 * values)
    low, high, method = resampling.interval(values, DRAWS)
    assert method == resampling.BCA
    is_covered = (low <= truth) & (truth <= high)
    assert 0.925 <= is_covered.mean() <= 0.975


def test_few_seeds_have_students_interval():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    low, high, method = resampling.interval(values, DRAWS)
    expected = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)
    assert method == resampling.STUDENT


def test_one_seed_has_no_interval():
    low, high, method = resampling.interval(np.array([1.0]), DRAWS)
    assert np.isnan([low, high]).all()
    assert method == ""


def test_students_interval_covers_in_95_of_100_studies():
    values = np.random.default_rng(1).normal(2.0, 3.0, (3000, 5))
    low, high = resampling.t_interval(values)
    is_covered = (low <= 2) & (high >= 2)
    assert 0.935 <= is_covered.mean() <= 0.965


@pytest.mark.parametrize("seeds", [5, 6])
def test_permutation_test_equals_that_of_scipy(seeds):
    x, y = np.random.default_rng(seeds).normal(size=(2, seeds))
    p = resampling.permutation_test((x[:, None] * y)[None], DRAWS)[0]
    expected = scipy.stats.permutation_test(
        (x,),
        lambda permuted: abs((permuted * y).sum() - seeds * x.mean() * y.mean()),
        permutation_type="pairings",
        alternative="greater",
    )
    assert p == pytest.approx(expected.pvalue, abs=1e-9)


def test_flips_of_signs_equal_the_paired_test_of_scipy():
    x, y = np.random.default_rng(0).normal(size=(2, 8))
    x += 0.5
    p = resampling.two_sided_p(DRAWS.signs(8) @ (x - y) / 8)
    expected = scipy.stats.permutation_test(
        (x, y), lambda a, b: abs((a - b).mean()), permutation_type="samples", alternative="greater"
    )
    assert p == pytest.approx(expected.pvalue)


def test_p_of_many_seeds_is_close_to_that_of_the_t_test():
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    p = resampling.two_sided_p(Draws(9999).signs(40) @ differences / 40)
    assert p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_draws_depend_only_on_seed_stratum_and_number_of_seeds():
    counts = Draws(50).counts(9).copy()
    Draws(50).counts(12)
    np.testing.assert_array_equal(Draws(50).counts(9), counts)
    assert (Draws(50, seed=1).counts(9) != counts).any()
    assert (Draws(50).counts(9, stratum=1) != counts).any()


def test_draws_have_the_properties_of_their_kind():
    assert (Draws(50).counts(9).sum(axis=1) == 9).all()
    assert (Draws(50).permutations(9)[0] == np.arange(9)).all()
    assert (Draws(50).shifts(9, 30)[1:] > 0).all()
