"""The mixed model: compare with statsmodels and closed forms, and simulate coverage."""

import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from tiers import slow_except

from plasticity.statistics import mixed_model
from plasticity.statistics.associations import pooled


def simulate_runs(seed, runs=8, tasks=20, intercept_spread=1.0, slope_spread=0.5):
    random = np.random.default_rng(seed)
    x = random.normal(size=(1, runs, tasks)) + random.normal(size=(runs, 1))
    intercepts = intercept_spread * random.normal(size=(runs, 1))
    slopes = 0.3 + slope_spread * random.normal(size=(runs, 1))
    return x, intercepts + slopes * x + random.normal(size=x.shape)


def sums_of_runs(x, y):
    lengths = np.full(len(x), x.shape[1])
    return np.array([lengths, x.sum(1), (x * x).sum(1), y.sum(1), (x * y).sum(1), (y * y).sum(1)])


def dense_likelihood(factor, x, y):
    """Evaluate the restricted likelihood with the full covariance matrix of each run."""
    lower = np.array([[factor[0], 0], [factor[1], factor[2]]])
    psi = lower @ lower.T
    information = np.zeros((2, 2))
    products = np.zeros(2)
    designs = [np.column_stack([np.ones(x.shape[1]), of_run]) for of_run in x]
    inverses = [np.linalg.inv(np.eye(len(design)) + design @ psi @ design.T) for design in designs]
    for design, inverse, of_run in zip(designs, inverses, y, strict=True):
        information += design.T @ inverse @ design
        products += design.T @ inverse @ of_run
    fixed = np.linalg.solve(information, products)
    squares = 0.0
    log_determinants = 0.0
    for design, inverse, of_run in zip(designs, inverses, y, strict=True):
        residual = of_run - design @ fixed
        squares += residual @ inverse @ residual
        log_determinants -= np.linalg.slogdet(inverse)[1]
    freedom = x.size - 2
    variance = squares / freedom
    value = freedom * np.log(variance) + log_determinants + np.linalg.slogdet(information)[1]
    error = np.sqrt(variance * np.linalg.inv(information)[1, 1])
    return [value, fixed[1], error, np.sqrt(variance)]


@pytest.mark.parametrize("seed", range(6))
def test_likelihood_equals_that_of_dense_matrices(seed):
    (x,), (y,) = simulate_runs(seed, runs=4, tasks=6)
    factor = np.random.default_rng(seed).normal(size=3)
    likelihood = mixed_model._likelihood(factor, sums_of_runs(x, y))
    assert likelihood == pytest.approx(dense_likelihood(factor, x, y), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_fit_equals_that_of_statsmodels(seed):
    x, y = simulate_runs(seed)
    fit = mixed_model.fit_slopes(x, y)
    design = np.column_stack([np.ones(x.size), x.ravel()])
    run = np.repeat(np.arange(8), 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM(y.ravel(), design, run, exog_re=design)
        expected = model.fit(reml=True, method=["lbfgs", "bfgs", "cg"])
    covariance = np.asarray(expected.cov_re)
    assert fit.slope[0, 0] == pytest.approx(expected.fe_params[1], rel=2e-3)
    assert fit.spread[0, 0] == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-2)
    lower = np.linalg.cholesky(covariance / expected.scale + 1e-12 * np.eye(2))
    factor = lower[np.tril_indices(2)]
    _, _, error, _ = mixed_model._likelihood(factor, sums_of_runs(x[0], y[0]))
    assert fit.error[0, 0] == pytest.approx(error, rel=5e-3)


@pytest.mark.parametrize("seed", range(5))
def test_slope_is_the_mean_slope_of_runs_if_all_runs_have_the_same_measure(seed):
    random = np.random.default_rng(seed)
    x = np.broadcast_to(np.linspace(-1, 1, 30), (1, 12, 30))
    intercepts = random.normal(size=(12, 1))
    slopes = 1 + random.normal(size=(12, 1))
    y = intercepts + slopes * x + 0.3 * random.normal(size=x.shape)
    fit = mixed_model.fit_slopes(x, y)
    slopes_of_runs = np.array([stats.linregress(x[0, 0], of_run).slope for of_run in y[0]])
    assert fit.slope[0, 0] == pytest.approx(slopes_of_runs.mean(), rel=1e-4)
    assert fit.error[0, 0] == pytest.approx(stats.sem(slopes_of_runs), rel=1e-3)


def test_fit_without_random_effects_is_least_squares():
    x, y = simulate_runs(0, runs=30, tasks=40, intercept_spread=0.0, slope_spread=0.0)
    fit = mixed_model.fit_slopes(x, y)
    expected = stats.linregress(x.ravel(), y.ravel())
    assert fit.slope[0, 0] == pytest.approx(expected.slope, abs=0.2 * expected.stderr)
    assert fit.error[0, 0] == pytest.approx(expected.stderr, rel=0.2)


def test_fit_does_not_depend_on_units_or_on_the_order_of_runs():
    x, y = simulate_runs(1)
    fit = mixed_model.fit_slopes(x, y)
    scaled = mixed_model.fit_slopes(100 * x + 7, 0.01 * y)
    reversed_runs = mixed_model.fit_slopes(x[:, ::-1], y[:, ::-1])
    assert scaled.slope[0, 0] == pytest.approx(1e-4 * fit.slope[0, 0], rel=1e-4)
    assert scaled.error[0, 0] == pytest.approx(1e-4 * fit.error[0, 0], rel=1e-3)
    assert reversed_runs.slope[0, 0] == pytest.approx(fit.slope[0, 0], rel=1e-4)


def test_constant_series_has_no_slope():
    x, y = simulate_runs(1)
    assert np.isnan(mixed_model.fit_slopes(np.ones_like(x), y).slope).all()
    assert np.isnan(mixed_model.fit_slopes(x, np.ones_like(y)).slope).all()


@pytest.mark.parametrize(
    ("slope_spread", "studies"), slow_except([(0.3, 60)], [(0.0, 300), (0.3, 300), (0.3, 60)])
)
def test_interval_of_the_slope_covers_in_95_of_100_studies(slope_spread, studies):
    is_covered = []
    for seed in range(studies):
        random = np.random.default_rng(seed)
        x = random.normal(size=(1, 12, 30))
        slopes = 0.5 + slope_spread * random.normal(size=(12, 1))
        y = slopes * x + random.normal(size=x.shape)
        estimate = pooled([x], [y]).at(0, 0)
        unit = y.std() / x.std()
        is_covered.append(estimate.low * unit <= 0.5 <= estimate.high * unit)
    error = np.sqrt(0.05 * 0.95 / studies)
    assert abs(np.mean(is_covered) - 0.95) <= 3.2 * error
