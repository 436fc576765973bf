"""Associations between runs, between arms and pooled: compare with scipy and explicit resamples."""

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import associations, mixed_model
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, Variant

DRAWS = Draws(299)
ARMS, SEEDS, TASKS = 5, 9, 12


def random_setting(seed=0):
    random = np.random.default_rng(seed)
    return SettingArrays(
        setting="s",
        arms=["none", *(f"l2(strength={index})" for index in range(ARMS - 2)), "fresh"],
        variants=[
            Variant("weight_norm", "", "all"),
            Variant("feature_rank", "next", "hidden_1"),
            Variant("feature_rank", "previous", "hidden_1"),
        ],
        measures=random.normal(size=(3, ARMS, SEEDS, TASKS)),
        outcome_names=["final_error"],
        outcomes=random.normal(size=(1, ARMS, SEEDS, TASKS)),
    )


def associations_of(setting):
    table, _ = associations.associations([setting], DRAWS, 0.3)
    return table


def only_row(table, **keys):
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table.loc[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture(scope="module")
def table():
    return associations_of(random_setting())


@pytest.mark.parametrize("rank", [True, False])
def test_resampled_correlation_equals_scipy_on_the_drawn_seeds(rank):
    random = np.random.default_rng(0)
    x, y = np.round(random.normal(size=(2, 2, SEEDS)), 1)  # with ties
    counts = DRAWS.counts(SEEDS)[:20]
    statistic = associations._correlation_over_seeds(x, y, rank)
    correlations = statistic(counts).reshape(20, 2, 2)
    reference = scipy.stats.spearmanr if rank else scipy.stats.pearsonr
    for draw, repeats in enumerate(counts.astype(int)):
        for m in range(2):
            for o in range(2):
                expected = reference(np.repeat(x[m], repeats), np.repeat(y[o], repeats)).statistic
                assert correlations[draw, m, o] == pytest.approx(expected, abs=1e-10)


def test_association_between_runs_is_the_correlation_of_means_over_tasks(table):
    setting = random_setting()
    x = setting.measures[0, 0].mean(axis=-1)
    y = setting.outcomes[0, 0].mean(axis=-1)
    row = only_row(table, level="between_runs", arm="none", measure="weight_norm")
    assert row["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert row["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert row["low"] < row["estimate"] < row["high"]
    assert row["p"] == pytest.approx(scipy.stats.spearmanr(x, y).pvalue, abs=0.08)


def test_association_between_arms_is_the_correlation_of_means_over_seeds_and_tasks(table):
    setting = random_setting()
    x = setting.measures[0, :-1].mean(axis=(1, 2))  # without the baseline
    y = setting.outcomes[0, :-1].mean(axis=(1, 2))
    row = only_row(table, level="between_arms", measure="weight_norm")
    assert row["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert row["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)


def test_seed_that_diverged_in_one_arm_is_left_out_of_all_between_arms():
    setting = random_setting()
    setting.outcomes[0, 2, 4, 3:] = np.nan
    row = only_row(associations_of(setting), level="between_arms", measure="weight_norm")
    x = np.delete(setting.measures[0, :-1], 4, axis=1).mean(axis=(1, 2))
    y = np.delete(setting.outcomes[0, :-1], 4, axis=1).mean(axis=(1, 2))
    assert row["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert row["seeds"] == SEEDS - 1


def scaled_deviations(values):
    without_baseline = values[:1, :-1]
    deviations = without_baseline - without_baseline.mean(axis=2, keepdims=True)
    return deviations.reshape(1, -1, TASKS) / deviations.std()


def test_pooled_association_is_the_mixed_model_of_all_runs_but_the_baseline(table):
    setting = random_setting()
    fit = mixed_model.fit_slopes(
        scaled_deviations(setting.measures), scaled_deviations(setting.outcomes)
    )
    row = only_row(table, level="pooled", measure="weight_norm")
    assert row["estimate"] == pytest.approx(fit.slope[0, 0], abs=1e-4)
    assert row["seeds"] == (ARMS - 1) * SEEDS


def test_pooled_association_leaves_out_only_the_run_with_a_gap():
    setting = random_setting()
    setting.measures[0, 1, 2, 3] = np.nan
    row = only_row(associations_of(setting), level="pooled", measure="weight_norm")
    assert row["seeds"] == (ARMS - 1) * SEEDS - 1
    assert "1 diverged" in row["note"]


def test_only_associations_within_runs_have_every_variant_of_a_measure(table):
    points = table.groupby("level")["evaluation_point"].agg(set)
    assert points["within_run"] == {"", "next", "previous"}
    for level in ("between_runs", "between_arms", "pooled"):
        assert points[level] == {"", "next"}


def test_too_few_seeds_and_arms_give_a_note_instead_of_an_estimate():
    setting = random_setting()
    small_setting = SettingArrays(
        setting="s",
        arms=setting.arms[:3],
        variants=setting.variants,
        measures=setting.measures[:, :3, :4],
        outcome_names=setting.outcome_names,
        outcomes=setting.outcomes[:, :3, :4],
    )
    table = associations_of(small_setting)
    for level, note in (("between_runs", "too few seeds"), ("between_arms", "too few arms")):
        rows = table[table["level"] == level]
        assert len(rows)
        assert rows["estimate"].isna().all()
        assert rows["note"].str.contains(note).all()
