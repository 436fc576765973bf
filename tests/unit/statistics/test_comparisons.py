"""Methods beside each other, against scipy and plain loops; levels and coverage by simulation."""

import numpy as np
import pytest
import scipy.stats
from tiers import slow_except

from plasticity.statistics import comparisons
from plasticity.statistics.panels import Key, Panel
from plasticity.statistics.resampling import Draws

DRAWS = Draws(999)
SEEDS, TASKS = 10, 16


def panel(name="a", seed=0, seeds=SEEDS, effect=0.0, common=0.0, noise=0.1):
    """`l2` is better than `none` by `effect`; seeds differ by `common`, for both arms alike."""
    draw = np.random.default_rng(seed)
    error = (
        0.5 + common * draw.normal(size=(1, seeds, 1)) + noise * draw.normal(size=(3, seeds, TASKS))
    )
    error[1] -= effect
    return Panel(
        name,
        ["none", "l2", "fresh"],
        [Key("weight_norm", "", "all")],
        error[None],
        ["final_error"],
        error[None],
    )


def row(table, **keys):
    found = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


def versus(table, statistic, setting="a", stage="late"):
    return row(table, setting=setting, arm="l2", versus="none", stage=stage, statistic=statistic)


def test_statistics_are_scipys():
    one = panel(effect=0.03)
    table = comparisons.comparisons([one], DRAWS)
    none, l2, _ = one.values[0][..., -2:].mean(axis=-1)
    difference = versus(table, "mean_difference")
    assert difference["estimate"] == pytest.approx((l2 - none).mean())
    exact = scipy.stats.permutation_test(
        (l2, none),
        lambda a, b: abs((a - b).mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=2000,
    )
    assert difference["p"] == pytest.approx(exact.pvalue, abs=0.03)
    assert versus(table, "probability_of_improvement")["estimate"] == pytest.approx(
        1 - scipy.stats.mannwhitneyu(l2, none).statistic / SEEDS**2
    )
    for statistic, expected in (
        ("mean", l2.mean()),
        ("interquartile_mean", scipy.stats.trim_mean(l2, 0.25)),
    ):
        assert row(table, arm="l2", versus="", stage="late", statistic=statistic)[
            "estimate"
        ] == pytest.approx(expected)


def test_pairing_finds_what_common_seeds_would_hide():
    one = panel(effect=0.05, common=0.5, noise=0.02)
    none, l2, _ = one.values[0][..., -2:].mean(axis=-1)
    assert scipy.stats.ttest_ind(l2, none).pvalue > 0.3
    found = versus(comparisons.comparisons([one], DRAWS), "mean_difference")
    assert found["p"] < 0.01
    assert found["high"] < 0


def test_over_settings_each_counts_alike():
    panels = [panel("a", 0, effect=0.1), panel("b", 1, seeds=20, effect=0.3)]
    table = comparisons.comparisons(panels, DRAWS)
    singles = [versus(table, "mean_difference", setting)["estimate"] for setting in "ab"]
    over = versus(table, "mean_difference", "all")
    assert over["estimate"] == pytest.approx(np.mean(singles))
    assert over["low"] < over["estimate"] < over["high"] < 0
    assert over["p"] < 0.01
    scores = np.concatenate([one.values[0][1][..., -2:].mean(axis=-1) for one in panels])
    found = row(
        table, setting="all", arm="l2", versus="", stage="late", statistic="interquartile_mean"
    )
    assert found["estimate"] == pytest.approx(scipy.stats.trim_mean(scores, 0.25))


@pytest.mark.parametrize("studies", slow_except([60], [60, 250]))
def test_the_paired_test_rejects_in_5_of_100_studies_and_its_interval_covers(studies):
    found = [
        versus(
            comparisons.comparisons([panel(seed=seed, common=0.3)], Draws(299)), "mean_difference"
        )
        for seed in range(studies)
    ]
    error = np.sqrt(0.05 * 0.95 / studies)
    assert np.mean([one["p"] <= 0.05 for one in found]) <= 0.05 + 3 * error
    assert abs(np.mean([one["low"] <= 0 <= one["high"] for one in found]) - 0.95) <= 3.5 * error


def test_few_seeds_say_which_p_they_can_reach_and_one_seed_is_no_test():
    few = versus(comparisons.comparisons([panel(seeds=5)], DRAWS), "mean_difference")
    assert "smallest p possible is 0.0625" in few["note"]
    assert few["interval"] == "Student's t over seeds"
    one = versus(comparisons.comparisons([panel(seeds=1)], DRAWS), "mean_difference")
    assert np.isnan([one["low"], one["p"]]).all()
    assert np.isfinite(one["estimate"])
    assert "too few seeds" in one["note"]


def test_a_diverged_run_is_left_out_of_both_arms_of_a_pair():
    one = panel()
    one.values[0, 1, 3, 5:] = np.nan
    found = versus(comparisons.comparisons([one], DRAWS), "mean_difference")
    none, l2, _ = np.delete(one.values[0], 3, axis=1)[..., -2:].mean(axis=-1)
    assert found["estimate"] == pytest.approx((l2 - none).mean())
    assert found["seeds"] == SEEDS - 1
    assert "1 diverged" in found["note"]


def test_profiles_are_shares_of_runs_below_thresholds():
    panels = [panel("a"), panel("b", 1, common=0.2)]
    table = comparisons.profiles(panels, DRAWS)
    scores = [one.values[0][1][..., -2:].mean(axis=-1) for one in panels]
    for _, found in table[table["arm"] == "l2"].iterrows():
        assert found["estimate"] == pytest.approx(
            np.mean([(one <= found["threshold"] + 1e-12).mean() for one in scores])
        )
        assert found["low"] <= found["estimate"] <= found["high"]
