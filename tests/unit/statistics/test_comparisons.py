"""Comparisons of arms: compare with scipy and loops, and simulate levels and coverage."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from tiers import slow_except

from plasticity.statistics import comparisons
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, Variant

DRAWS = Draws(999)
SEEDS, TASKS = 10, 16


def random_setting(name="a", seed=0, seeds=SEEDS, effect=0.0, common=0.0, noise=0.1):
    """Draw a setting in which `l2` is better than `none` by `effect`.

    `common` is the standard deviation of seeds, which is shared by all arms.
    """
    random = np.random.default_rng(seed)
    of_seeds = common * random.normal(size=(1, seeds, 1))
    error = 0.5 + of_seeds + noise * random.normal(size=(3, seeds, TASKS))
    error[1] -= effect
    return SettingArrays(
        setting=name,
        arms=["none", "l2", "fresh"],
        variants=[Variant("weight_norm", "", "all")],
        measures=error[None],
        outcome_names=["final_error"],
        outcomes=error[None],
    )


def late_scores(setting):
    """Average the last two tasks, shape ``(arm, seed)``."""
    return setting.outcomes[0][..., -2:].mean(axis=-1)


def only_row(table, **keys):
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table.loc[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


def l2_versus_none(table, statistic, setting="a"):
    return only_row(
        table, setting=setting, arm="l2", versus="none", stage="late", statistic=statistic
    )


def mean_difference(*settings, draws=DRAWS, of="a"):
    table = comparisons.comparisons(settings, draws, 0.05)
    return l2_versus_none(table, "mean_difference", of)


def test_statistics_equal_those_of_scipy():
    setting = random_setting(effect=0.03)
    table = comparisons.comparisons([setting], DRAWS, 0.05)
    none, l2, _ = late_scores(setting)
    difference = l2_versus_none(table, "mean_difference")
    assert difference["estimate"] == pytest.approx((l2 - none).mean())
    exact = scipy.stats.permutation_test(
        (l2, none),
        lambda a, b: abs((a - b).mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=2000,
    )
    assert difference["p"] == pytest.approx(exact.pvalue, abs=0.03)
    improvement = l2_versus_none(table, "probability_of_improvement")
    expected = 1 - scipy.stats.mannwhitneyu(l2, none).statistic / SEEDS**2
    assert improvement["estimate"] == pytest.approx(expected)
    for statistic, expected in (
        ("mean", l2.mean()),
        ("interquartile_mean", scipy.stats.trim_mean(l2, 0.25)),
    ):
        row = only_row(table, arm="l2", versus="", stage="late", statistic=statistic)
        assert row["estimate"] == pytest.approx(expected)


def test_pairing_finds_an_effect_that_variation_over_seeds_hides():
    setting = random_setting(effect=0.05, common=0.5, noise=0.02)
    none, l2, _ = late_scores(setting)
    assert scipy.stats.ttest_ind(l2, none).pvalue > 0.3
    difference = mean_difference(setting)
    assert difference["p"] < 0.01
    assert difference["high"] < 0


def test_settings_have_equal_weight_in_the_overall_difference():
    settings = [
        random_setting("a", seed=0, effect=0.1),
        random_setting("b", seed=1, seeds=20, effect=0.3),
    ]
    table = comparisons.comparisons(settings, DRAWS, 0.05)
    singles = [l2_versus_none(table, "mean_difference", name)["estimate"] for name in "ab"]
    overall = l2_versus_none(table, "mean_difference", "all")
    assert overall["estimate"] == pytest.approx(np.mean(singles))
    assert overall["low"] < overall["estimate"] < overall["high"] < 0
    assert overall["p"] < 0.01
    l2_scores = np.concatenate([late_scores(setting)[1] for setting in settings])
    row = only_row(
        table, setting="all", arm="l2", versus="", stage="late", statistic="interquartile_mean"
    )
    assert row["estimate"] == pytest.approx(scipy.stats.trim_mean(l2_scores, 0.25))


@pytest.mark.parametrize("studies", slow_except([60], [60, 250]))
def test_paired_test_keeps_its_level_and_its_interval_covers(studies):
    differences = [
        mean_difference(random_setting(seed=seed, common=0.3), draws=Draws(299))
        for seed in range(studies)
    ]
    is_rejected = [row["p"] <= 0.05 for row in differences]
    is_covered = [row["low"] <= 0 <= row["high"] for row in differences]
    error = np.sqrt(0.05 * 0.95 / studies)
    assert np.mean(is_rejected) <= 0.05 + 3 * error
    assert abs(np.mean(is_covered) - 0.95) <= 3.5 * error


def test_five_seeds_note_the_smallest_possible_p():
    difference = mean_difference(random_setting(seeds=5))
    assert "smallest p possible is 0.0625" in difference["note"]
    assert difference["interval"] == "Student's t over seeds"


def test_one_seed_has_an_estimate_without_interval_and_test():
    difference = mean_difference(random_setting(seeds=1))
    assert np.isnan([difference["low"], difference["p"]]).all()
    assert np.isfinite(difference["estimate"])
    assert "too few seeds" in difference["note"]


def test_diverged_run_is_left_out_of_both_arms_of_a_pair():
    setting = random_setting()
    setting.outcomes[0, 1, 3, 5:] = np.nan
    difference = mean_difference(setting)
    none, l2, _ = np.delete(late_scores(setting), 3, axis=1)
    assert difference["estimate"] == pytest.approx((l2 - none).mean())
    assert difference["seeds"] == SEEDS - 1
    assert "1 diverged" in difference["note"]


def test_profile_is_the_share_of_runs_below_each_threshold():
    settings = [random_setting("a"), random_setting("b", 1, common=0.2)]
    table = comparisons.profiles(settings, DRAWS)
    scores = [late_scores(setting)[1] for setting in settings]
    for _, row in table[table["arm"] == "l2"].iterrows():
        shares = [(of_setting <= row["threshold"] + 1e-12).mean() for of_setting in scores]
        assert row["estimate"] == pytest.approx(np.mean(shares))
        assert row["low"] <= row["estimate"] <= row["high"]


def test_arm_is_compared_with_none_and_with_the_baseline_of_its_architecture():
    setting = random_setting()
    arms = ["none", "l2", "crelu", "fresh", "fresh+crelu"]
    errors = np.concatenate([setting.outcomes, setting.outcomes[:, :2]], axis=1)
    table = comparisons.comparisons([replace(setting, arms=arms, outcomes=errors)], DRAWS, 0.05)
    pairs = table[table["versus"] != ""][["arm", "versus"]].drop_duplicates()
    assert sorted(pairs.itertuples(index=False, name=None)) == [
        ("crelu", "fresh+crelu"),
        ("crelu", "none"),
        ("l2", "fresh"),
        ("l2", "none"),
        ("none", "fresh"),
    ]
