"""Associations between runs, between arms and pooled, against scipy and plain resamples."""

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import associations, mixed_model
from plasticity.statistics.panels import Key, Panel
from plasticity.statistics.resampling import Draws

DRAWS = Draws(299)
ARMS, SEEDS, TASKS = 5, 9, 12


def panel(seed=0):
    draw = np.random.default_rng(seed)
    keys = [
        Key("weight_norm", "", "all"),
        Key("feature_rank", "next", "hidden_1"),
        Key("feature_rank", "previous", "hidden_1"),
    ]
    arms = ["none", *(f"l2(strength={place})" for place in range(ARMS - 2)), "fresh"]
    return Panel(
        "s",
        arms,
        keys,
        draw.normal(size=(3, ARMS, SEEDS, TASKS)),
        ["final_error"],
        draw.normal(size=(1, ARMS, SEEDS, TASKS)),
    )


def row(table, **keys):
    found = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def table():
    return associations.associations([panel()], DRAWS)[0]


@pytest.mark.parametrize("rank", [True, False])
def test_a_resamples_correlation_is_scipys_of_the_seeds_drawn(rank):
    draw = np.random.default_rng(0)
    x, y = np.round(draw.normal(size=(2, 2, SEEDS)), 1)  # with ties
    counts = DRAWS.counts(SEEDS)[:20]
    found = associations._over_seeds(x, y, rank)(counts).reshape(20, 2, 2)
    of = scipy.stats.spearmanr if rank else scipy.stats.pearsonr
    for place, one in enumerate(counts.astype(int)):
        for m in range(2):
            for o in range(2):
                expected = of(np.repeat(x[m], one), np.repeat(y[o], one)).statistic
                assert found[place, m, o] == pytest.approx(expected, abs=1e-10)


def test_between_runs_it_is_the_correlation_of_means_over_tasks(table):
    one = panel()
    x, y = one.measures[0, 0].mean(axis=-1), one.values[0, 0].mean(axis=-1)
    found = row(table, level="between_runs", arm="none", measure="weight_norm")
    assert found["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert found["low"] < found["estimate"] < found["high"]
    assert found["p"] == pytest.approx(scipy.stats.spearmanr(x, y).pvalue, abs=0.08)


def test_between_arms_it_is_the_correlation_of_means_over_seeds_and_tasks(table):
    one = panel()
    x, y = one.measures[0].mean(axis=(1, 2)), one.values[0].mean(axis=(1, 2))
    found = row(table, level="between_arms", measure="weight_norm")
    assert found["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)


def test_a_seed_that_diverged_in_one_arm_is_left_out_of_all_between_arms():
    one = panel()
    one.values[0, 2, 4, 3:] = np.nan
    found = row(
        associations.associations([one], DRAWS)[0], level="between_arms", measure="weight_norm"
    )
    x, y = (np.delete(of[0], 4, axis=1).mean(axis=(1, 2)) for of in (one.measures, one.values))
    assert found["estimate"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert found["seeds"] == SEEDS - 1


def test_pooled_it_is_the_mixed_model_of_all_runs_that_keep_learning(table):
    one = panel()
    x, y = (
        of[:1, :-1] - of[:1, :-1].mean(axis=2, keepdims=True) for of in (one.measures, one.values)
    )
    x, y = (of.reshape(1, -1, TASKS) / of.std() for of in (x, y))
    found = row(table, level="pooled", measure="weight_norm")
    assert found["estimate"] == pytest.approx(mixed_model.slopes(x, y).estimate[0, 0], abs=1e-4)
    assert found["seeds"] == (ARMS - 1) * SEEDS


def test_a_gap_in_one_arm_splits_no_measure_of_the_pooled_model():
    one = panel()
    one.measures[0, 1, 2, 3] = np.nan
    table = associations.associations([one], DRAWS)[0]
    found = row(table, level="pooled", measure="weight_norm")
    assert found["seeds"] == (ARMS - 1) * SEEDS - 1
    assert "1 diverged" in found["note"]


def test_other_levels_take_each_measure_once_and_within_runs_every_variant(table):
    variants = table.groupby("level")["evaluation_point"].agg(set)
    assert variants["within_run"] == {"", "next", "previous"}
    assert (
        variants["between_runs"] == variants["between_arms"] == variants["pooled"] == {"", "next"}
    )


def test_few_seeds_and_few_arms_say_so():
    one = panel()
    few = Panel(
        "s", one.arms[:3], one.keys, one.measures[:, :3, :4], one.outcomes, one.values[:, :3, :4]
    )
    table = associations.associations([few], DRAWS)[0]
    for level, said in (("between_runs", "too few seeds"), ("between_arms", "too few arms")):
        rows = table[table["level"] == level]
        assert rows["estimate"].isna().all()
        assert rows["note"].str.contains(said).all()
