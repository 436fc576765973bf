"""The mixed model against statsmodels, closed forms and simulation."""

import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from tiers import slow_except

from plasticity.statistics import mixed_model
from plasticity.statistics.associations import pooled


def runs(seed, number=8, tasks=20, intercepts=1.0, slopes=0.5):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(1, number, tasks)) + draw.normal(size=(number, 1))
    a, b = intercepts * draw.normal(size=(number, 1)), 0.3 + slopes * draw.normal(size=(number, 1))
    return x, a + b * x + draw.normal(size=x.shape)


def sums(x, y):
    return np.array(
        [
            np.full(len(x), x.shape[1]),
            x.sum(1),
            (x * x).sum(1),
            y.sum(1),
            (x * y).sum(1),
            (y * y).sum(1),
        ]
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_likelihood_is_that_of_the_dense_formulas(seed):
    (x,), (y,) = runs(seed, number=4, tasks=6)
    factor = np.random.default_rng(seed).normal(size=3)
    lower = np.array([[factor[0], 0], [factor[1], factor[2]]])
    blocks = [np.column_stack([np.ones(6), one]) for one in x]
    inverses = [np.linalg.inv(np.eye(6) + one @ lower @ lower.T @ one.T) for one in blocks]
    information = sum(one.T @ inverse @ one for one, inverse in zip(blocks, inverses, strict=True))
    fixed = np.linalg.solve(
        information,
        sum(one.T @ inverse @ of for one, inverse, of in zip(blocks, inverses, y, strict=True)),
    )
    left = [of - one @ fixed for one, of in zip(blocks, y, strict=True)]
    variance = sum(one @ inverse @ one for one, inverse in zip(left, inverses, strict=True)) / (
        24 - 2
    )
    value = (
        22 * np.log(variance)
        - sum(np.linalg.slogdet(one)[1] for one in inverses)
        + np.linalg.slogdet(information)[1]
    )
    expected = [
        value,
        fixed[1],
        np.sqrt(variance * np.linalg.inv(information)[1, 1]),
        np.sqrt(variance),
    ]
    assert mixed_model._likelihood(factor, sums(x, y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_slopes_are_those_of_statsmodels_or_likelier(seed):
    x, y = runs(seed)
    found = mixed_model.slopes(x, y)
    design = np.column_stack([np.ones(x.size), x.ravel()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = MixedLM(y.ravel(), design, np.repeat(np.arange(8), 20), exog_re=design).fit(
            reml=True, method=["lbfgs", "bfgs", "cg"]
        )
    assert found.estimate[0, 0] == pytest.approx(expected.fe_params[1], rel=2e-3)
    assert found.spread[0, 0] == pytest.approx(np.sqrt(np.asarray(expected.cov_re)[1, 1]), rel=1e-2)
    theirs = np.linalg.cholesky(np.asarray(expected.cov_re) / expected.scale + 1e-12 * np.eye(2))[
        np.tril_indices(2)
    ]
    at_theirs = mixed_model._likelihood(theirs, sums(x[0], y[0]))
    assert found.error[0, 0] == pytest.approx(at_theirs[2], rel=5e-3)


@pytest.mark.parametrize("seed", range(5))
def test_with_the_same_measure_in_every_run_the_slope_is_the_mean_of_the_runs_slopes(seed):
    draw = np.random.default_rng(seed)
    x = np.broadcast_to(np.linspace(-1, 1, 30), (1, 12, 30))
    y = (
        draw.normal(size=(12, 1))
        + (1 + draw.normal(size=(12, 1))) * x
        + 0.3 * draw.normal(size=x.shape)
    )
    found = mixed_model.slopes(x, y)
    of_runs = np.array([stats.linregress(x[0, 0], one).slope for one in y[0]])
    assert found.estimate[0, 0] == pytest.approx(of_runs.mean(), rel=1e-4)
    assert found.error[0, 0] == pytest.approx(stats.sem(of_runs), rel=1e-3)


def test_without_random_effects_it_is_least_squares():
    x, y = runs(0, number=30, tasks=40, intercepts=0.0, slopes=0.0)
    found, expected = mixed_model.slopes(x, y), stats.linregress(x.ravel(), y.ravel())
    assert found.estimate[0, 0] == pytest.approx(expected.slope, abs=0.2 * expected.stderr)
    assert found.error[0, 0] == pytest.approx(expected.stderr, rel=0.2)


def test_units_and_the_order_of_runs_do_not_matter():
    x, y = runs(1)
    found, scaled, turned = (
        mixed_model.slopes(x, y),
        mixed_model.slopes(100 * x + 7, 0.01 * y),
        mixed_model.slopes(x[:, ::-1], y[:, ::-1]),
    )
    assert scaled.estimate[0, 0] == pytest.approx(1e-4 * found.estimate[0, 0], rel=1e-4)
    assert scaled.error[0, 0] == pytest.approx(1e-4 * found.error[0, 0], rel=1e-3)
    assert turned.estimate[0, 0] == pytest.approx(found.estimate[0, 0], rel=1e-4)


def test_a_constant_series_has_no_slope():
    x, y = runs(1)
    assert np.isnan(mixed_model.slopes(np.ones_like(x), y).estimate).all()
    assert np.isnan(mixed_model.slopes(x, np.ones_like(y)).estimate).all()


@pytest.mark.parametrize(
    ("slopes", "studies"), slow_except([(0.3, 60)], [(0.0, 300), (0.3, 300), (0.3, 60)])
)
def test_its_interval_covers_the_slope_in_95_of_100_studies(slopes, studies):
    covered = []
    for seed in range(studies):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(1, 12, 30))
        y = (0.5 + slopes * draw.normal(size=(12, 1))) * x + draw.normal(size=x.shape)
        found = pooled([x], [y])
        unit = y.std() / x.std()
        covered.append(found["low"][0, 0] * unit <= 0.5 <= found["high"][0, 0] * unit)
    error = np.sqrt(0.05 * 0.95 / studies)
    assert abs(np.mean(covered) - 0.95) <= 3.2 * error
