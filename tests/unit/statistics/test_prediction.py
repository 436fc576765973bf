"""How checkpoints are ranked, against scipy and plain loops."""

import itertools

import numpy as np
import pytest
import scipy.stats

from plasticity.statistics import prediction
from plasticity.statistics.panels import Key, Panel
from plasticity.statistics.resampling import Draws

DRAWS = Draws(199)
ARMS, SEEDS, TASKS = 3, 9, 12


def panel(name="s", seed=0, relation=0.0, extra=0.0):
    """Weight norm goes with the outcome by `relation`, the rank of the Fisher by `extra`, negatively."""
    draw = np.random.default_rng(seed)
    names = ["weight_norm", "feature_rank", "dead_fraction", "fisher_effective_rank"]
    measures = draw.normal(size=(len(names), ARMS, SEEDS, TASKS))
    error = relation * measures[0] - extra * measures[3] + draw.normal(size=measures.shape[1:])
    arms = ["none", "l2(strength=0.1)", "fresh"]
    return Panel(
        name,
        arms,
        [Key(one, "next", "all") for one in names],
        measures,
        ["final_error"],
        error[None],
    )


def row(table, **keys):
    found = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_tau_and_auc_are_those_of_all_pairs_of_a_task():
    draw = np.random.default_rng(0)
    scores, outcome = draw.normal(size=(TASKS, 20)), draw.normal(size=(TASKS, 20))
    seeds = np.repeat(np.arange(5), 4)
    sums = next(prediction.pairs(scores, prediction.signs(outcome[None]), seeds))
    expected = np.mean(
        [scipy.stats.kendalltau(a, b).statistic for a, b in zip(scores, outcome, strict=True)]
    )
    assert sums.tau(np.ones((1, 5)))[0] == pytest.approx(expected)
    assert sums.auc(np.ones((1, 5)))[0] == pytest.approx((1 + expected) / 2)


def test_ties_are_kendalls_tau_b_and_half_a_pair():
    draw = np.random.default_rng(1)
    score, outcome = draw.integers(0, 4, 20).astype(float), draw.integers(0, 3, 20).astype(float)
    sums = next(
        prediction.pairs(score[None], prediction.signs(outcome[None, None]), np.arange(20) % 4)
    )
    assert sums.tau(np.ones((1, 4)))[0] == pytest.approx(
        scipy.stats.kendalltau(score, outcome).statistic
    )
    wins = [
        1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
        for i, j in itertools.permutations(range(20), 2)
        if outcome[i] > outcome[j]
    ]
    assert sums.auc(np.ones((1, 4)))[0] == pytest.approx(np.mean(wins))


def test_a_resample_weighs_pairs_of_seeds():
    draw = np.random.default_rng(2)
    scores, outcome, seeds = draw.normal(size=(2, 12)), draw.normal(size=(2, 12)), np.arange(12) % 4
    counts = np.array([[2.0, 0.0, 1.0, 1.0]])
    sums = next(prediction.pairs(scores, prediction.signs(outcome[None]), seeds))
    weighed = 0.0
    for i, j in itertools.product(range(12), repeat=2):
        agreeing = (
            np.sign(scores[:, i] - scores[:, j]) * np.sign(outcome[:, i] - outcome[:, j])
        ).sum()
        weighed += counts[0, seeds[i]] * counts[0, seeds[j]] * agreeing
    assert prediction._weighed(sums.agreeing, counts)[0] == pytest.approx(weighed)


def test_more_tasks_than_eight_bits_count_are_summed():
    same = np.ones((300, 2, 2), np.int8)
    assert (prediction._summed(same, same) == 300).all()


def test_the_direction_is_taken_from_the_other_settings():
    panels = [panel("a", 0, 2.0), panel("b", 1, 2.0), panel("d", 3, 2.0), panel("c", 2, -2.0)]
    table = prediction.prediction(panels, DRAWS)
    keys = {"outcome": "final_error", "measure": "weight_norm", "statistic": "auc_left_out"}
    assert row(table, setting="a", **keys)["estimate"] > 0.7
    assert row(table, setting="c", **keys)["estimate"] < 0.3
    over = row(table, setting="all", **keys)
    assert over["estimate"] == pytest.approx(
        np.mean([row(table, setting=one, **keys)["estimate"] for one in "abcd"])
    )


def test_curvature_adds_where_it_knows_more_and_only_there():
    keys = {"setting": "all", "outcome": "final_error", "statistic": "added"}
    adds = row(
        prediction.prediction([panel(str(place), place, 1.0, 1.0) for place in range(4)], DRAWS),
        **keys,
    )
    assert adds["low"] > 0.02
    nothing = row(
        prediction.prediction([panel(str(place), place, 1.0) for place in range(4)], DRAWS), **keys
    )
    assert abs(nothing["estimate"]) < 0.02


def test_one_setting_has_no_other_to_learn_from():
    table = prediction.prediction([panel()], DRAWS)
    found = row(table, setting="s", measure="weight_norm", statistic="auc_left_out")
    assert np.isnan(found["estimate"])
    assert found["note"] == "one setting"
    assert (table["statistic"] != "added").all()


def test_ranks_that_are_one_thing_correlate_and_others_do_not():
    one = panel()
    one.measures[1] = 2 * one.measures[3] + 1
    found = prediction.redundancy([one], DRAWS)
    assert found["estimate"].to_numpy() == pytest.approx([1, 1])
    other = prediction.redundancy([panel()], DRAWS)
    x, y = panel().measures[[1, 3], 0]
    expected = np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    assert row(other, association="within_run")["estimate"] == pytest.approx(expected)
