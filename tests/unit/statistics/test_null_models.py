"""Nulls against plain loops, and their levels and power in simulated studies, beside those of naive tests."""

import itertools

import numpy as np
import pytest
import scipy.stats
from tiers import slow_except

from plasticity.statistics import null_models, simulated
from plasticity.statistics.resampling import Draws

DRAWS = Draws(499)
SEEDS, TASKS = 5, 14


@pytest.fixture(scope="module")
def series():
    draw = np.random.default_rng(0)
    return draw.normal(size=(2, SEEDS, TASKS)).cumsum(axis=-1), draw.normal(size=(3, SEEDS, TASKS))


def spearman(x, y):
    return scipy.stats.spearmanr(x, y).statistic


def test_ranks_are_those_of_spearman_ties_included():
    draw = np.random.default_rng(0)
    for x, y in draw.integers(0, 6, (20, 2, 12)).astype(float):
        assert (null_models.ranked(x) * null_models.ranked(y)).sum() == pytest.approx(
            spearman(x, y), abs=1e-14
        )
    assert np.isnan(null_models.ranked(np.full(5, 0.1))).all()
    assert np.isnan(null_models.standardised(np.full(5, 0.1))).all()


def test_each_null_leaves_what_a_loop_over_seeds_leaves(series):
    x, y = series
    found = null_models.nulls(x, y, DRAWS)
    for m, o in itertools.product(range(2), range(3)):
        own, other = x[m] - x[m].mean(axis=0), y[o] - y[o].mean(axis=0)
        task = [spearman(a, b) for a, b in zip(own, other, strict=True)]
        moves = [spearman(np.diff(a), np.diff(b)) for a, b in zip(own, other, strict=True)]
        pairs = np.array([[spearman(a, b) for b in y[o]] for a in x[m]])
        excess = np.trace(pairs) / SEEDS - (pairs.sum() - np.trace(pairs)) / (SEEDS * (SEEDS - 1))
        assert found["task"]["estimate"][m, o] == pytest.approx(np.mean(task))
        assert found["differenced"]["estimate"][m, o] == pytest.approx(np.mean(moves))
        assert found["mismatched"]["estimate"][m, o] == pytest.approx(excess)
        t = np.mean(task) / (scipy.stats.sem(task) * np.sqrt((SEEDS - 1) / (SEEDS - 2)))
        assert found["task"]["p"][m, o] == pytest.approx(2 * scipy.stats.t.sf(abs(t), SEEDS - 1))
        means = [
            np.mean([pairs[i, j] for i, j in enumerate(order)])
            for order in itertools.permutations(range(SEEDS))
        ]
        far = np.abs(np.array(means) - pairs.mean())
        assert found["mismatched"]["p"][m, o] == pytest.approx((far >= far[0] - 1e-12).mean())


def test_shifts_are_circular(series):
    x, y = (null_models.ranked(null_models.innovations(values)) for values in series)
    shifts = np.random.default_rng(0).integers(1, TASKS - 1, (40, SEEDS))
    shifts[0] = 0
    found = null_models._shifted(x, y, shifts)
    for m, o in itertools.product(range(2), range(3)):
        drawn = np.array(
            [np.mean([np.roll(y[o, i], s) @ x[m, i] for i, s in enumerate(row)]) for row in shifts]
        )
        drawn[0] /= null_models.dependent(SEEDS)
        assert found[m, o] == pytest.approx((abs(drawn) >= abs(drawn[0]) - 1e-12).mean())


def test_correlations_of_deviations_depend_on_each_other_as_is_said():
    draw = np.random.default_rng(0)
    x, y = (null_models.deviations(draw.normal(size=(4000, 6, 40))) for _ in range(2))
    per_seed = (null_models.standardised(x) * null_models.standardised(y)).sum(axis=-1)
    true = per_seed.mean(axis=1).std()
    said = np.sqrt((per_seed.var(axis=1, ddof=1) / 6).mean()) * null_models.dependent(6)
    assert said == pytest.approx(true, rel=0.05)


CASES = [("curves", 50), *((shape, 120) for shape in simulated.SHAPES)]


@pytest.mark.parametrize(("shape", "studies"), slow_except([("curves", 50)], CASES))
def test_no_test_is_fooled_by_a_shared_trend_and_the_naive_one_is(shape, studies):
    found = simulated.rejections(
        simulated.TESTS | {"naive": simulated.naive_seeds}, shape, studies, DRAWS
    )
    assert found.pop("naive") > 0.4
    assert max(found.values()) <= 0.05 + 3.3 * np.sqrt(
        0.05 * 0.95 / studies
    )  # one of 70 such tests may be as far off once in 30 runs


def test_a_planted_relation_is_found():
    found = simulated.rejections(simulated.TESTS, "curves", 40, DRAWS, relation=0.4)
    assert found.pop("lead and lag: Granger, outcome first") < 0.3
    assert min(found.values()) > 0.9
