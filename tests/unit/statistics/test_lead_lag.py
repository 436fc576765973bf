"""Lead and lag: compare with loops and statsmodels, and with studies whose answer is known."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.regression.linear_model import OLS

from plasticity.statistics import lead_lag, null_models
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import CompleteSeries, Variant

DRAWS = Draws(499)
SEEDS, TASKS = 6, 24


@pytest.fixture(scope="module")
def series():
    random = np.random.default_rng(0)
    return random.normal(size=(2, SEEDS, TASKS)), random.normal(size=(3, SEEDS, TASKS))


def leading_series(lead, seeds=10, tasks=50, seed=0):
    """Draw a measure, and an outcome that follows it after `lead` tasks."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(seeds, tasks + lead))
    x = steps[:, lead:].cumsum(axis=1)
    y = (steps[:, :tasks] + 0.3 * random.normal(size=(seeds, tasks))).cumsum(axis=1)
    return x[None], y[None]


@pytest.mark.parametrize("current", [True, False])
def test_granger_statistic_equals_the_comparison_of_two_regressions(series, current):
    x, y = series
    wald = lead_lag.granger_statistics(x, y, current)
    first_lag = 0 if current else 1
    tasks = np.arange(3, TASKS)
    for m, o, i, j in itertools.product(range(2), range(3), (0, 3), (0, 5)):
        cause, response = x[m, i], y[o, j]
        own = np.column_stack([np.ones(len(tasks)), response[tasks - 1], response[tasks - 2]])
        full = np.column_stack([own, cause[tasks - first_lag], cause[tasks - first_lag - 1]])
        small_fit = OLS(response[tasks], own).fit()
        full_fit = OLS(response[tasks], full).fit()
        expected = (small_fit.ssr - full_fit.ssr) / full_fit.ssr * full_fit.df_resid
        assert wald[m, o, i, j] == pytest.approx(expected, rel=1e-9)


def mean_cross_correlation(x, y, lag):
    """Correlate the ranks of each seed at a lag, mean over seeds; a positive lag delays y."""
    early = slice(0, TASKS - abs(lag))
    late = slice(abs(lag), TASKS)
    x_window, y_window = (early, late) if lag >= 0 else (late, early)
    correlations = []
    for of_x, of_y in zip(x, y, strict=True):
        x_ranks = scipy.stats.rankdata(of_x)[x_window]
        y_ranks = scipy.stats.rankdata(of_y)[y_window]
        correlations.append(np.corrcoef(x_ranks, y_ranks)[0, 1])
    return np.mean(correlations)


def test_cross_correlation_at_the_best_lag_equals_a_loop(series):
    x, y = series
    answer = lead_lag.cross_correlation(x, y, DRAWS, 0.3)
    for m, o in itertools.product(range(2), range(3)):
        expected = mean_cross_correlation(x[m], y[o], int(answer.lag[m, o]))
        assert answer.estimate.value[m, o] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
def test_change_point_is_where_two_means_fit_the_ranks_best(seed):
    values = np.random.default_rng(seed).normal(size=20)
    ranks = scipy.stats.rankdata(values)
    squares = []
    for cut in range(1, 20):
        before, after = ranks[:cut], ranks[cut:]
        squares.append(((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum())
    assert lead_lag.change_points(values) == np.argmin(squares) + 1


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_cross_correlation_finds_the_lag_of_a_leading_and_of_a_following_measure(lead):
    x, y = leading_series(lead)
    for measure, outcome, lag in ((x, y, lead), (y, x, -lead)):
        answers = lead_lag.answer_questions(measure, outcome, np.arange(50), DRAWS, 0.3)
        answer = answers["cross_correlation"]
        assert answer.lag[0, 0] == lag
        assert answer.estimate.value[0, 0] > answer.band[0, 0]
        assert answer.estimate.p[0, 0] < 0.01


def test_granger_test_rejects_only_in_the_direction_of_the_lead():
    x, y = leading_series(1)
    answers = lead_lag.answer_questions(x, y, np.arange(50), DRAWS, 0.3)
    assert answers["measure_first"].estimate.p[0, 0] < 0.01
    assert answers["outcome_first"].estimate.p[0, 0] > 0.05


def test_measure_that_changes_earlier_has_the_earlier_change_point():
    random = np.random.default_rng(0)
    tasks = np.arange(0, 120, 3)
    changes = random.integers(10, 20, (10, 1))
    x = (np.arange(40) >= changes) + 0.1 * random.normal(size=(10, 40))
    y = (np.arange(40) >= changes + 4) + 0.1 * random.normal(size=(10, 40))
    answer = lead_lag.answer_questions(x[None], y[None], tasks, DRAWS, 0.3)["change_point"]
    lead = 12  # four measured tasks, which are three tasks apart
    assert answer.estimate.value[0, 0] == pytest.approx(lead, abs=1)
    assert answer.estimate.low[0, 0] > 0
    assert answer.lower_quartile[0, 0] <= lead <= answer.upper_quartile[0, 0]
    assert answer.estimate.p[0, 0] < 0.01
    assert null_models.MIN_SEEDS <= 10


def test_question_without_an_answer_leaves_the_later_ones_without_one():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(1, SEEDS, TASKS)), random.normal(size=(1, SEEDS, TASKS))
    y[..., 5:] = y[..., 5:6]  # nothing is left to correlate with at the longest lags
    answers = lead_lag.answer_questions(x, y, np.arange(TASKS), DRAWS, 0.3)
    assert np.isnan(answers["cross_correlation"].estimate.value).all()
    assert np.isfinite(answers["change_point"].estimate.value).all()
    variant = Variant("fisher_trace", "next", "all")
    complete = CompleteSeries([variant], x, y, np.arange(SEEDS), np.arange(TASKS), SEEDS)
    for row in lead_lag._rows(complete, ["final_error"], DRAWS, 0.3):
        assert row["note"] == "constant"
        assert np.isnan([row[name] for name in ("estimate", "lag", "low", "high", "p")]).all()
