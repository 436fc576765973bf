"""Arrays of treated copies, permutations of treatments, and means over seeds with gaps."""

import numpy as np
import pytest
from treated_settings import Truth, treated_setting

from plasticity.statistics import resampling, summaries
from plasticity.statistics.resampling import Draws
from plasticity.statistics.treated_arrays import (
    TreatedArrays,
    average_over_seeds,
    by_task_label,
    label_weights,
    mean_over_tasks,
    permute_treatments,
)

STATUSES = {
    ("shrink(strength=0.3)", 1): "diverged",
    ("split_units", 0): "unchanged",
    ("fresh", 2): "run_diverged",
}
DRAWS = Draws(199)


def test_copies_that_were_not_trained_have_no_values():
    data = treated_setting(statuses=STATUSES)
    # the values of an unchanged copy are those of `none`
    assert np.isfinite(data["treated_final_error"].sel(treatment="split_units")).all()
    arrays = TreatedArrays.from_dataset("s", data)
    is_missing = np.zeros(arrays.statuses.shape, bool)
    for copy, seed in STATUSES:
        is_missing[:, seed, :, arrays.copies.index(copy)] = True
    for values in (*arrays.x, *arrays.y, *arrays.other_outcomes.values()):
        np.testing.assert_array_equal(np.isnan(values), is_missing)


def test_each_measure_has_the_block_of_the_network_or_of_its_last_layer():
    data = treated_setting()
    arrays = TreatedArrays.from_dataset("s", data)
    blocks = dict(zip(arrays.measures, arrays.blocks, strict=True))
    assert blocks.pop("feature_rank") == "hidden_1"
    assert set(blocks.values()) == {"all"}
    index = arrays.measures.index("feature_rank")
    expected = data["treated_feature_rank"].sel(block="hidden_1").values
    np.testing.assert_array_equal(arrays.x[index], expected)


def test_families_strengths_and_tasks_are_those_of_the_dataset():
    data = treated_setting(treated_tasks=(3, 9, 15))
    arrays = TreatedArrays.from_dataset("s", data)
    assert arrays.task_labels == ["3", "9", "15", "all"]
    families = dict(zip(arrays.copies, arrays.families, strict=True))
    strengths = dict(zip(arrays.copies, arrays.strengths, strict=True))
    assert families["saturate(strength=5)"] == "harmful"
    assert families["rescale_layers(strength=2)"] == "preserving"
    assert families["none"] == "control"
    assert strengths["saturate(strength=5)"] == 5
    assert np.isnan(strengths["none"])


def test_margins_and_limits_are_no_measures():
    data = treated_setting()
    for ending in ("margin", "limit"):
        data[f"treated_fisher_rank_{ending}"] = data["treated_weight_norm"]
    assert (
        TreatedArrays.from_dataset("s", data).measures
        == TreatedArrays.from_dataset("s", treated_setting()).measures
    )


def test_series_of_runs_contain_no_treated_copies():
    names = {keys["measure"] for keys, _ in summaries.series(treated_setting())}
    assert not [name for name in names if name.startswith("treat")]
    assert "fisher_effective_rank" in names


# permutations of treatments


TREATMENT_OF_COPY = np.array([0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 5, 6, 7, 8])
STRENGTHS = np.array([np.nan, 3, 1, 2, np.nan, 2, 5, 0.1, 0.2, 0.3, *4 * [np.nan]])


def test_first_permutation_is_the_identity():
    orders = permute_treatments(TREATMENT_OF_COPY, STRENGTHS, DRAWS)
    assert orders.shape == (200, len(TREATMENT_OF_COPY))
    np.testing.assert_array_equal(orders[0], np.arange(len(TREATMENT_OF_COPY)))


def test_doses_of_a_treatment_stay_together_and_in_order():
    orders = permute_treatments(TREATMENT_OF_COPY, STRENGTHS, DRAWS)
    by_strength = {1: [2, 3, 1], 3: [5, 6], 4: [7, 8, 9]}
    for order in orders:
        for treatment in range(9):
            places = by_strength.get(
                treatment, np.flatnonzero(np.equal(TREATMENT_OF_COPY, treatment))
            )
            sources = order[places]
            assert len(set(TREATMENT_OF_COPY[sources])) == 1
            strengths = STRENGTHS[sources]
            assert np.isnan(strengths).all() or (np.diff(strengths) >= 0).all()
            source = TREATMENT_OF_COPY[sources[0]]
            largest = by_strength.get(source, [sources[0]])[-1]
            assert sources[-1] == largest


def test_every_treatment_takes_every_place_about_as_often():
    orders = permute_treatments(TREATMENT_OF_COPY, STRENGTHS, Draws(8999))[1:]
    for copy in range(len(TREATMENT_OF_COPY)):
        counts = np.bincount(TREATMENT_OF_COPY[orders[:, copy]], minlength=9)
        assert abs(counts - 1000).max() < 150  # five standard deviations


def test_few_treatments_have_all_permutations():
    orders = permute_treatments(np.array([0, 1, 1, 2, 3]), np.array([1, 1, 2, 1, 1]), DRAWS)
    assert len(orders) == 24
    assert len({tuple(order) for order in orders}) == 24


# means over tasks and seeds


def values_with_gaps():
    values = np.random.default_rng(0).normal(size=(3, 2, 5, 3))
    values[0, 0, 1, 2] = np.nan  # a seed lacks a task
    values[1, 1, :, 0] = np.nan  # no seed has the task
    values[2, 0] = np.nan  # nothing at all
    return values


def test_mean_over_tasks_uses_the_tasks_that_any_seed_has():
    values = values_with_gaps()
    means = mean_over_tasks(values)
    assert np.isnan(means[0, 0, 1])
    np.testing.assert_allclose(means[0, 0, 0], values[0, 0, 0].mean())
    np.testing.assert_allclose(means[1, 1], values[1, 1][:, 1:].mean(axis=-1))
    assert np.isnan(means[2, 0]).all()


def test_weights_of_seeds_and_tasks_give_the_mean_over_seeds():
    values = values_with_gaps()
    weights = label_weights(values)
    labelled = by_task_label(values)
    for index in np.ndindex(labelled.shape[:-1]):
        known = labelled[index][np.isfinite(labelled[index])]
        weighted = (weights[index] * np.nan_to_num(values[index[1:]])).sum()
        expected = known.mean() if len(known) else 0
        assert weighted == pytest.approx(expected)
        assert weights[index].sum() == pytest.approx(1 if len(known) else 0)


@pytest.mark.parametrize("seeds", [5, 12])
def test_means_and_intervals_are_those_of_the_seeds_with_values(seeds):
    values = np.random.default_rng(1).normal(size=(4, 3, seeds))
    values[0, 0, 2] = np.nan
    values[1, 1, [0, 3]] = np.nan
    means = average_over_seeds(values, DRAWS)
    for index in np.ndindex(4, 3):
        known = values[index][np.isfinite(values[index])]
        low, high, method = resampling.interval(known, DRAWS)
        assert means.value[index] == pytest.approx(known.mean())
        assert (means.low[index], means.high[index]) == pytest.approx((float(low), float(high)))
        assert means.method[index] == method
        assert means.seeds[index] == len(known)
        assert means.error[index] == pytest.approx(known.std(ddof=1) / np.sqrt(len(known)))


def test_one_seed_has_a_mean_and_no_interval():
    means = average_over_seeds(np.array([[np.nan, 2.0, np.nan], [np.nan] * 3]), DRAWS)
    assert means.value[0] == 2
    assert np.isnan(means.low[0])
    assert np.isnan(means.error[0])
    assert means.method[0] == ""
    assert list(means.seeds) == [1, 0]
    assert np.isnan(means.value[1])


def test_synthetic_copies_follow_their_truth():
    data = treated_setting(Truth(noise=0.01), treated_tasks=(12,))
    change = data["treated_fisher_effective_rank"] - data["treated_fisher_effective_rank"].sel(
        treatment="none"
    )
    errors = data["treated_final_error"] - data["treated_final_error"].sel(treatment="none")
    of_rank = change.sel(block="all").mean("seed").values.ravel()
    assert np.corrcoef(of_rank, errors.mean("seed").values.ravel())[0, 1] < -0.98
