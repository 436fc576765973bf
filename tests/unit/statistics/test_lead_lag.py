"""What comes first, against plain loops and statsmodels, in studies where the answer is known."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.regression.linear_model import OLS

from plasticity.statistics import lead_lag, null_models
from plasticity.statistics.resampling import Draws

DRAWS = Draws(499)
SEEDS, TASKS = 6, 24


@pytest.fixture(scope="module")
def series():
    draw = np.random.default_rng(0)
    return draw.normal(size=(2, SEEDS, TASKS)), draw.normal(size=(3, SEEDS, TASKS))


def led(lead, seeds=10, tasks=50, seed=0):
    """An outcome that follows the measure after so many tasks."""
    draw = np.random.default_rng(seed)
    steps = draw.normal(size=(seeds, tasks + lead))
    x = steps[:, lead:].cumsum(axis=1)
    y = (steps[:, :tasks] + 0.3 * draw.normal(size=(seeds, tasks))).cumsum(axis=1)
    return x[None], y[None]


@pytest.mark.parametrize("current", [True, False])
def test_grangers_statistic_is_that_of_two_regressions(series, current):
    x, y = series
    found = lead_lag.granger(x, y, current)
    for m, o, i, j in itertools.product(range(2), range(3), (0, 3), (0, 5)):
        cause, response, offset = x[m, i], y[o, j], 0 if current else 1
        places = np.arange(3, TASKS)
        own = np.column_stack([np.ones(len(places)), response[places - 1], response[places - 2]])
        both = np.column_stack([own, cause[places - offset], cause[places - offset - 1]])
        few, many = (OLS(response[places], design).fit() for design in (own, both))
        assert found[m, o, i, j] == pytest.approx(
            (few.ssr - many.ssr) / many.ssr * many.df_resid, rel=1e-9
        )


def test_the_largest_cross_correlation_is_that_of_a_loop(series):
    x, y = series
    found = lead_lag.cross_correlation(x, y, DRAWS)
    for m, o in itertools.product(range(2), range(3)):
        means = {}
        for lag in range(-5, 6):
            early, late = slice(0, TASKS - abs(lag)), slice(abs(lag), TASKS)
            first, second = (early, late) if lag >= 0 else (late, early)
            ranks = [
                (scipy.stats.rankdata(a)[first], scipy.stats.rankdata(b)[second])
                for a, b in zip(x[m], y[o], strict=True)
            ]
            means[lag] = np.mean([np.corrcoef(a, b)[0, 1] for a, b in ranks])
        lag = int(found["lag"][m, o])
        assert found["estimate"][m, o] == pytest.approx(means[lag])


@pytest.mark.parametrize("seed", range(10))
def test_a_change_point_is_where_two_means_fit_ranks_best(seed):
    values = np.random.default_rng(seed).normal(size=20)
    ranks = scipy.stats.rankdata(values)
    left = [
        ((ranks[:cut] - ranks[:cut].mean()) ** 2).sum()
        + ((ranks[cut:] - ranks[cut:].mean()) ** 2).sum()
        for cut in range(1, 20)
    ]
    assert lead_lag.change_points(values) == np.argmin(left) + 1


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_a_measure_that_leads_is_found_at_its_lag_and_one_that_follows_at_the_negative(lead):
    x, y = led(lead)
    for first, second, lag in ((x, y, lead), (y, x, -lead)):
        found = lead_lag.asked(first, second, np.arange(50), DRAWS)["cross_correlation"]
        assert found["lag"][0, 0] == lag
        assert found["estimate"][0, 0] > found["band"][0, 0]
        assert found["p"][0, 0] < 0.01


def test_grangers_test_tells_which_comes_first():
    x, y = led(1)
    found = lead_lag.asked(x, y, np.arange(50), DRAWS)
    assert found["measure_first"]["p"][0, 0] < 0.01
    assert found["outcome_first"]["p"][0, 0] > 0.05


def test_a_measure_that_changes_earlier_has_the_earlier_change_point():
    draw = np.random.default_rng(0)
    tasks = np.arange(0, 120, 3)
    at = draw.integers(10, 20, (10, 1))
    x = (np.arange(40) >= at) + 0.1 * draw.normal(size=(10, 40))
    y = (np.arange(40) >= at + 4) + 0.1 * draw.normal(size=(10, 40))
    found = lead_lag.asked(x[None], y[None], tasks, DRAWS)["change_point"]
    assert found["estimate"][0, 0] == pytest.approx(
        12, abs=1
    )  # four measured tasks, three tasks apart
    assert found["low"][0, 0] > 0
    assert found["lower_quartile"][0, 0] <= 12 <= found["upper_quartile"][0, 0]
    assert found["p"][0, 0] < 0.01
    assert null_models.FEWEST <= 10
