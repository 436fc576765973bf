"""Ranking of checkpoints: compare with scipy and loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import prediction
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, Variant

DRAWS = Draws(199)
ARMS, SEEDS, TASKS = 3, 9, 12
MEASURES = ["weight_norm", "feature_rank", "dead_fraction", "fisher_effective_rank"]


def random_setting(name="s", seed=0, norm_effect=0.0, rank_effect=0.0):
    """Draw a setting whose error rises with the weight norm and falls with the Fisher's rank."""
    random = np.random.default_rng(seed)
    measures = random.normal(size=(len(MEASURES), ARMS, SEEDS, TASKS))
    noise = random.normal(size=measures.shape[1:])
    error = norm_effect * measures[0] - rank_effect * measures[3] + noise
    return SettingArrays(
        setting=name,
        arms=["none", "l2(strength=0.1)", "fresh"],
        variants=[Variant(measure, "next", "all") for measure in MEASURES],
        measures=measures,
        outcome_names=["final_error"],
        outcomes=error[None],
    )


def only_row(table, **keys):
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table.loc[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


def predict(settings, fates=None):
    """Build the table. By default plasticity is lost in all settings."""
    fates = fates or {arrays.setting: "lost" for arrays in settings}
    return prediction.prediction(settings, DRAWS, fates, "effective_rank")


def sums_of(scores, outcome, seeds):
    """Sum over pairs, for shapes ``(task, run)``."""
    return next(prediction.pair_sums(scores, prediction.difference_signs(outcome[None]), seeds))


def test_tau_and_auc_equal_the_mean_over_tasks_of_kendalls_tau():
    random = np.random.default_rng(0)
    scores = random.normal(size=(TASKS, 20))
    outcome = random.normal(size=(TASKS, 20))
    sums = sums_of(scores, outcome, seeds=np.repeat(np.arange(5), 4))
    taus = [scipy.stats.kendalltau(a, b).statistic for a, b in zip(scores, outcome, strict=True)]
    once = np.ones((1, 5))
    assert sums.tau(once)[0] == pytest.approx(np.mean(taus))
    assert sums.auc(once)[0] == pytest.approx((1 + np.mean(taus)) / 2)


def win(first, second):
    if first == second:
        return 0.5
    return 1.0 if first > second else 0.0


def test_ties_follow_tau_b_and_count_half_in_auc():
    random = np.random.default_rng(1)
    score = random.integers(0, 4, 20).astype(float)
    outcome = random.integers(0, 3, 20).astype(float)
    sums = sums_of(score[None], outcome[None], seeds=np.arange(20) % 4)
    once = np.ones((1, 4))
    assert sums.tau(once)[0] == pytest.approx(scipy.stats.kendalltau(score, outcome).statistic)
    wins = []
    for i, j in itertools.permutations(range(20), 2):
        if outcome[i] > outcome[j]:
            wins.append(win(score[i], score[j]))
    assert sums.auc(once)[0] == pytest.approx(np.mean(wins))


def test_resample_weighs_pairs_by_the_counts_of_both_seeds():
    random = np.random.default_rng(2)
    scores = random.normal(size=(2, 12))
    outcome = random.normal(size=(2, 12))
    seeds = np.arange(12) % 4
    counts = np.array([[2.0, 0.0, 1.0, 1.0]])
    sums = sums_of(scores, outcome, seeds)
    expected = 0.0
    for i, j in itertools.product(range(12), repeat=2):
        score_signs = np.sign(scores[:, i] - scores[:, j])
        outcome_signs = np.sign(outcome[:, i] - outcome[:, j])
        weight = counts[0, seeds[i]] * counts[0, seeds[j]]
        expected += weight * (score_signs * outcome_signs).sum()
    assert prediction._weigh(sums.agreement, counts)[0] == pytest.approx(expected)


def test_sum_of_300_products_does_not_overflow_eight_bits():
    ones = np.ones((300, 2, 2), np.int8)
    assert (prediction._sum_products(ones, ones) == 300).all()


def with_unrelated_arms_and_a_baseline(name, seed):
    """Draw a setting in which a rank knows new networks, and nothing about those that learn on."""
    setting = random_setting(name, seed)
    measures, outcomes = setting.measures.copy(), setting.outcomes.copy()
    measures[3, 2] += 20
    outcomes[0, 2] = 0
    outcomes[0, :2] += 5
    return replace(setting, measures=measures, outcomes=outcomes)


def test_baseline_is_no_checkpoint_that_a_measure_can_rank():
    settings = [with_unrelated_arms_and_a_baseline(name, seed) for seed, name in enumerate("abc")]
    table = predict(settings)
    row = only_row(table, setting="all", measure="fisher_effective_rank", statistic="auc")
    assert row["estimate"] == pytest.approx(0.5, abs=0.05)


def test_means_over_settings_are_also_those_of_settings_that_lose_or_keep_plasticity():
    """A measure that ranks checkpoints only where plasticity is lost looks weak over all."""
    settings = [random_setting(name, seed, norm_effect=2.0) for seed, name in enumerate("abc")]
    settings += [random_setting(name, seed) for seed, name in enumerate("defg", start=3)]
    fates = dict.fromkeys("abc", "lost") | dict.fromkeys("def", "kept") | {"g": "unclear"}
    table = predict(settings, fates)
    keys = {"measure": "weight_norm", "statistic": "auc"}
    by_setting = {name: only_row(table, setting=name, **keys)["estimate"] for name in "abcdefg"}
    for setting, names in {"all": "abcdefg", "all: lost": "abc", "all: kept": "def"}.items():
        row = only_row(table, setting=setting, **keys)
        assert row["estimate"] == pytest.approx(np.mean([by_setting[name] for name in names]))
        assert row["note"] == f"of {len(names)} settings"
    added = table[(table["statistic"] == "added") & table["setting"].str.startswith("all")]
    assert set(added["setting"]) == {"all", "all: lost", "all: kept"}
    assert "all: kept" not in set(predict(settings[:2])["setting"])


def test_means_are_over_the_settings_of_a_problem_and_then_over_problems():
    settings = [random_setting(name, seed, norm_effect=1.0) for seed, name in enumerate("abcde")]
    problems = dict(zip("abcde", ["p", "p", "p", "q", "r"], strict=True))
    table = predict([replace(setting, problem=problems[setting.setting]) for setting in settings])
    keys = {"measure": "weight_norm", "statistic": "auc"}
    a, b, c, d, e = (only_row(table, setting=name, **keys)["estimate"] for name in "abcde")
    row = only_row(table, setting="all", **keys)
    of_problems = np.array([(a + b + c) / 3, d, e])
    reach = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(of_problems)
    assert row["estimate"] == pytest.approx(of_problems.mean())
    assert row["high"] == pytest.approx(of_problems.mean() + reach)
    assert row["problems"] == 3
    assert row["note"] == "of 5 settings"


def test_direction_is_taken_from_the_other_settings():
    settings = [
        random_setting("a", 0, norm_effect=2.0),
        random_setting("b", 1, norm_effect=2.0),
        random_setting("d", 3, norm_effect=2.0),
        random_setting("c", 2, norm_effect=-2.0),
    ]
    table = predict(settings)
    keys = {"outcome": "final_error", "measure": "weight_norm", "statistic": "auc_left_out"}
    estimates = {name: only_row(table, setting=name, **keys)["estimate"] for name in "abcd"}
    assert estimates["a"] > 0.7
    assert estimates["c"] < 0.3
    overall = only_row(table, setting="all", **keys)
    assert overall["estimate"] == pytest.approx(np.mean(list(estimates.values())))


def added_by_curvature(rank_effect):
    settings = [
        random_setting(str(index), index, norm_effect=1.0, rank_effect=rank_effect)
        for index in range(4)
    ]
    table = predict(settings)
    return only_row(table, setting="all", outcome="final_error", statistic="added")


def test_curvature_adds_only_if_it_is_related_to_the_outcome():
    assert added_by_curvature(rank_effect=1.0)["low"] > 0.02
    assert abs(added_by_curvature(rank_effect=0.0)["estimate"]) < 0.02


def test_one_setting_has_no_direction_and_no_nested_models():
    table = predict([random_setting()])
    row = only_row(table, setting="s", measure="weight_norm", statistic="auc_left_out")
    assert np.isnan(row["estimate"])
    assert row["note"] == "one setting"
    assert (table["statistic"] != "added").all()


def test_equal_ranks_are_redundant():
    setting = random_setting()
    setting.measures[1] = 2 * setting.measures[3] + 1
    table = prediction.redundancy([setting], DRAWS, "effective_rank")
    assert table["estimate"].to_numpy() == pytest.approx([1, 1])


def test_redundancy_is_the_mean_correlation_within_runs():
    setting = random_setting()
    x, y = setting.measures[[1, 3], 0]
    correlations = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    row = only_row(
        prediction.redundancy([setting], DRAWS, "effective_rank"), association="within_run"
    )
    assert row["estimate"] == pytest.approx(np.mean(correlations))
