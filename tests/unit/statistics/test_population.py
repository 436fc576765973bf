"""Correlations over settings: compare with scipy and loops; simulate level, coverage and power."""

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import population
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, Variant

DRAWS = Draws(399)
TASKS = 16  # early are the tasks 1 and 2, late the last two
RANK, SHARE = "fisher_effective_rank", "dead_fraction"


def make_setting(name, measures, gaps, arms=("none",)):
    """Build a setting from measures by name and gaps, shapes ``(arm, seed, task)``."""
    return SettingArrays(
        setting=name,
        arms=list(arms),
        variants=[Variant(measure, "next", "all") for measure in measures],
        measures=np.stack(list(measures.values())),
        outcome_names=["final_error_gap"],
        outcomes=gaps[None],
    )


def random_study(seed, settings):
    random = np.random.default_rng(seed)
    study = []
    for index in range(settings):
        values, share, gaps = random.uniform(0.1, 1, (3, 2, 4, TASKS))
        measures = {RANK: values, SHARE: share}
        study.append(make_setting(f"s{index}", measures, gaps, arms=("none", "fresh")))
    return study


def draw_points(seed, settings, correlations):
    """Draw normal changes with these correlations with the gap, shape ``(setting, …, gap)``."""
    random = np.random.default_rng(seed)
    gap = random.normal(size=settings)
    columns = []
    for correlation in correlations:
        noise = random.normal(size=settings)
        columns.append(correlation * gap + np.sqrt(1 - correlation**2) * noise)
    return np.column_stack([*columns, gap])


def spearman_of_normal(pearson):
    return 6 / np.pi * np.arcsin(pearson / 2)


# Changes


def test_changes_equal_loops_over_runs_and_tasks():
    (arrays,) = random_study(0, 1)
    points = population.changes(arrays)
    for index, measure in enumerate((RANK, SHARE)):
        first, late, loss = [], [], []
        for seed in range(4):
            first.append(arrays.measures[index, 0, seed, 1])
            for task in (14, 15):
                late.append(arrays.measures[index, 0, seed, task])
                gaps = arrays.outcomes[0, 0, seed]
                loss.append(gaps[task] - gaps[0])
        change, gap = points[measure]
        expected = {
            RANK: np.log(np.mean(late) / np.mean(first)),
            SHARE: np.mean(late) - np.mean(first),
        }
        assert change == pytest.approx(expected[measure])
        assert gap == pytest.approx(np.mean(loss))


def test_rank_that_falls_to_zero_is_the_largest_fall():
    assert population._change(RANK, 5.0, 0.0) == -np.inf
    points = draw_points(0, 9, [0.5])
    points[2, 0] = -np.inf
    finite = points.copy()
    finite[2, 0] = -99.0
    assert population.correlate(points, DRAWS) == population.correlate(finite, DRAWS)


def test_change_of_negative_values_has_their_direction():
    assert population._change("hessian_trace", -4.0, -2.0) == pytest.approx(np.log(2))
    assert np.isnan(population._change("hessian_trace", -4.0, 2.0))


def test_growth_of_the_gap_does_not_depend_on_the_tasks_of_the_measure():
    (arrays,) = random_study(0, 1)
    growth = population.changes(arrays)[RANK][1]
    arrays.measures[0, 0, :, [2, 14]] = np.nan
    assert population.changes(arrays)[RANK][1] == growth


def test_measure_that_was_not_taken_late_has_no_change():
    (arrays,) = random_study(0, 1)
    arrays.measures[0, 0, :, 14:] = np.nan
    assert set(population.changes(arrays)) == {SHARE}


# Numbers


def test_correlation_and_p_equal_those_of_scipy():
    points = draw_points(0, 12, [0.4])
    estimate = population.correlate(points, Draws(4999))
    expected = scipy.stats.spearmanr(*points.T)
    assert estimate.value == pytest.approx(expected.statistic)
    assert estimate.p == pytest.approx(expected.pvalue, abs=0.02)


def test_difference_of_sizes_equals_that_of_scipy():
    triples = draw_points(0, 12, [0.8, -0.3])
    sizes = [abs(scipy.stats.spearmanr(triples[:, i], triples[:, 2]).statistic) for i in (0, 1)]
    assert population.compare_sizes(triples, DRAWS).value == pytest.approx(sizes[0] - sizes[1])


def test_table_has_a_correlation_of_each_measure_and_a_difference_to_curvature():
    table = population.population(random_study(0, 9), DRAWS, RANK)
    assert table[["measure", "versus"]].to_numpy().tolist() == [
        [RANK, ""],
        [SHARE, ""],
        [SHARE, RANK],
    ]
    assert (table["settings"] == 9).all()
    assert table["p"].notna().tolist() == [True, True, False]
    assert (table["interval"] == "BCa over settings").all()


def test_fewer_than_eight_settings_are_too_few():
    table = population.population(random_study(0, 7), DRAWS, RANK)
    assert len(table) == 3
    assert table["estimate"].isna().all()
    assert (table["note"] == "too few settings").all()


def test_measure_that_never_changes_is_constant():
    points = draw_points(0, 9, [0.5])
    points[:, 0] = 0.0
    assert population.correlate(points, DRAWS).note == "constant"


# Simulations


def share_excluding(estimates, truth):
    return np.mean([one.low > truth or one.high < truth for one in estimates])


def simulate(studies, settings=20):
    """Estimate two unrelated measures, a related one, and differences of equal correlations."""
    unrelated, related, equal = [], [], []
    for seed in range(studies):
        unrelated.append(population.correlate(draw_points(seed, settings, [0.0]), DRAWS))
        related.append(population.correlate(draw_points(seed, settings, [0.7]), DRAWS))
        equal.append(population.compare_sizes(draw_points(seed, settings, [0.7, -0.7]), DRAWS))
    return unrelated, related, equal


@pytest.mark.parametrize(
    ("studies", "most"),
    [(60, 0.15), pytest.param(1000, 0.08, marks=pytest.mark.slow)],
)
def test_tests_keep_their_level_and_intervals_cover_the_truth(studies, most):
    unrelated, related, equal = simulate(studies)
    assert np.mean([one.p <= 0.05 for one in unrelated]) <= most - 0.01
    assert share_excluding(unrelated, 0.0) <= most
    assert share_excluding(related, spearman_of_normal(0.7)) <= most
    assert share_excluding(equal, 0.0) <= most


def test_strong_relation_is_found_and_beats_an_unrelated_measure():
    found, better = [], []
    for seed in range(20):
        triples = draw_points(seed, 30, [0.9, 0.0])
        found.append(population.correlate(triples[:, [0, 2]], DRAWS).p <= 0.05)
        better.append(population.compare_sizes(triples, DRAWS).low > 0)
    assert np.mean(found) == 1
    assert np.mean(better) >= 0.8
