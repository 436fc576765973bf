"""Bootstrap, permutations and signs against scipy, exact distributions and simulation."""

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import associations, resampling
from plasticity.statistics.resampling import Draws

DRAWS = Draws(1999)


def test_bootstrapped_means_of_yes_and_no_are_binomial():
    values = np.array([1.0] * 6 + [0.0] * 4)
    drawn = Draws(20_000).counts(10) @ values
    expected = scipy.stats.binom(10, 0.6).pmf(np.arange(11)) * len(drawn)
    found = np.bincount(drawn.astype(int), minlength=11)
    merged = [
        (found[:3].sum(), expected[:3].sum()),
        *zip(found[3:10], expected[3:10], strict=True),
        (found[10], expected[10]),
    ]
    assert scipy.stats.chisquare(*zip(*merged, strict=True)).pvalue > 0.001


@pytest.mark.parametrize("seeds", [8, 25])
def test_the_bca_interval_is_scipys_but_for_the_expansion(monkeypatch, seeds):
    """Of 8 seeds, an interval without the factor √(n/(n − 1)) is 7 % narrower than scipy's."""
    values = np.random.default_rng(0).exponential(size=seeds)
    monkeypatch.setattr(
        resampling.stats.t,
        "ppf",
        lambda share, freedom: scipy.stats.norm.ppf(share) / np.sqrt(seeds / (seeds - 1)),
    )
    draws = Draws(40_000)
    found = np.ravel(resampling.bca(resampling.of_each(values), seeds, draws))
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, rng=1
    ).confidence_interval
    np.testing.assert_allclose(found, expected, atol=0.02 * values.std())


def test_an_expanded_interval_is_wider():
    values = np.random.default_rng(0).normal(size=10)
    low, high = resampling.bca(resampling.of_each(values), 10, DRAWS)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=1999, rng=1
    ).confidence_interval
    assert low[0] < expected.low
    assert high[0] > expected.high


@pytest.mark.parametrize("place", range(10))
def test_an_interval_holds_its_estimate_or_is_none(place):
    """Where one seed alone differs, its place among the others decides whether resamples can say anything."""
    alone, others = np.eye(10)[[place]], np.arange(10.0)[None]
    statistic = associations._over_seeds(alone, others, rank=True)
    low, high = resampling.bca(statistic, 10, DRAWS)
    assert np.isnan([low, high]).all() == (place in (0, 9))
    assert place in (0, 9) or low <= statistic(np.ones((1, 10)))[0] <= high


@pytest.mark.parametrize("seeds", [10, 30])
@pytest.mark.parametrize("kind", ["normal", "correlations"])
def test_intervals_cover_the_truth_in_93_to_97_of_100_studies(seeds, kind):
    draw = np.random.default_rng(seeds)
    values = draw.normal(size=(2000, seeds))
    truth = 0.0
    if kind == "correlations":
        truth = np.tanh(0.8 + 0.5 * draw.normal(size=10**6)).mean()
        values = np.tanh(0.8 + 0.5 * values)
    low, high, how = resampling.interval(values, DRAWS)
    assert how == resampling.BCA
    assert 0.925 <= ((low <= truth) & (truth <= high)).mean() <= 0.975


def test_few_seeds_have_students_interval_and_one_has_none():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    low, high, how = resampling.interval(values, DRAWS)
    np.testing.assert_allclose(
        [low, high],
        scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values)),
        rtol=1e-12,
    )
    assert how == resampling.STUDENT
    low, high, how = resampling.interval(values[:1], DRAWS)
    assert np.isnan([low, high]).all()
    assert how == ""


def test_students_interval_covers_the_truth_in_95_of_100_studies():
    low, high = resampling.t_interval(np.random.default_rng(1).normal(2.0, 3.0, (3000, 5)))
    assert 0.935 <= ((low <= 2) & (high >= 2)).mean() <= 0.965


@pytest.mark.parametrize("seeds", [5, 6])
def test_permuted_pairs_are_scipys_pairings(seeds):
    x, y = np.random.default_rng(seeds).normal(size=(2, seeds))
    found = resampling.permuted((x[:, None] * y)[None], DRAWS)[0]
    expected = scipy.stats.permutation_test(
        (x,),
        lambda one: abs((one * y).sum() - seeds * x.mean() * y.mean()),
        permutation_type="pairings",
        alternative="greater",
    )
    assert found == pytest.approx(expected.pvalue, abs=1e-9)


def test_flipped_signs_are_scipys_paired_samples():
    x, y = np.random.default_rng(0).normal(size=(2, 8))
    x += 0.5
    found = resampling.extreme(DRAWS.signs(8) @ (x - y) / 8)
    expected = scipy.stats.permutation_test(
        (x, y), lambda a, b: abs((a - b).mean()), permutation_type="samples", alternative="greater"
    )
    assert found == pytest.approx(expected.pvalue)


def test_p_of_many_seeds_is_near_the_t_tests():
    draw = np.random.default_rng(0)
    differences = draw.normal(0.3, 1, 40)
    found = resampling.extreme(Draws(9999).signs(40) @ differences / 40)
    assert found == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, abs=0.015)


def test_draws_depend_on_nothing_but_the_seed_and_the_number():
    first = Draws(50).counts(9).copy()
    Draws(50).counts(12)
    np.testing.assert_array_equal(Draws(50).counts(9), first)
    assert (Draws(50, seed=1).counts(9) != first).any()
    assert (Draws(50).counts(9, 1) != first).any()
    assert (first.sum(axis=1) == 9).all()
    assert (Draws(50).permutations(9)[0] == np.arange(9)).all()
    assert (Draws(50).shifts(9, 30)[1:] > 0).all()
