"""Tables against scipy, closed forms and simulation: false positives, coverage, power."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from plasticity import statistics

ARMS, SEEDS, TASKS = ["none", "l2(strength=0.1)", "fresh"], 5, 16


def setting(draw, arms=ARMS, seeds=SEEDS, tasks=TASKS):
    """A setting's dataset with drawn outcomes and one measure of each shape."""
    member = ("arm", "seed", "task")
    sizes = (len(arms), seeds, tasks)
    data = xr.Dataset(
        {name: (member, draw.uniform(0.1, 0.9, sizes)) for name in ("final_error", "online_error", "final_loss", "update_norm")}
        | {
            "status": (member, np.zeros(sizes, np.int8)),
            "weight_norm": ((*member, "block"), draw.normal(size=(*sizes, 2))),
            "feature_rank": ((*member, "moment", "block"), draw.normal(size=(*sizes, 2, 2))),
            "fisher_eigenvalue": ((*member, "moment", "block", "rank"), draw.normal(size=(*sizes, 2, 2, 3))),
        },
        {"arm": arms, "seed": range(seeds), "task": range(tasks), "moment": ["old", "new"], "block": ["hidden_1", "all"]},
    )
    data["feature_rank"][:, :, 0, 0] = np.nan  # no old data at task 0
    data["feature_rank"][..., 1] = np.nan  # a block that does not have the measure
    outcomes = ("final_error", "online_error", "final_loss")
    return data.assign({f"fresh_{name}": data[name].sel(arm="fresh", drop=True) for name in outcomes})


@pytest.fixture
def data():
    return setting(np.random.default_rng(0))


def row(table, **keys):
    found = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("seed", range(20))
def test_spearman_is_scipys_ties_included(seed):
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, 6, (2, 7, 12)).astype(float)
    expected = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(statistics.spearman(x, y), expected, rtol=1e-12, atol=1e-15)


def test_spearman_of_a_constant_series_is_missing():
    assert np.isnan(statistics.spearman(np.ones((1, 9)), np.arange(9.0)[None])).all()


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
    np.testing.assert_allclose(statistics.interval(values), expected, rtol=1e-12)


def test_one_value_has_no_interval():
    assert np.isnan(statistics.interval(np.array([3.0]))).all()


def test_intervals_of_means_cover_the_truth_in_95_of_100_studies():
    draw = np.random.default_rng(1)
    bounds = np.array([statistics.interval(values) for values in draw.normal(2.0, 3.0, (3000, 5))])
    covered = ((bounds[:, 0] <= 2.0) & (bounds[:, 1] >= 2.0)).mean()
    assert 0.935 <= covered <= 0.965


def test_unrelated_noise_is_taken_for_a_correlation_in_5_of_100_studies():
    draw = np.random.default_rng(2)
    found = [statistics.association(*draw.normal(size=(2, 6, 30))) for _ in range(2000)]
    excluded = np.mean([row["low"] > 0 or row["high"] < 0 for row in found])
    assert 0.035 <= excluded <= 0.065


def test_a_planted_relation_is_found():
    draw = np.random.default_rng(3)
    found = []
    for _ in range(200):
        x = draw.normal(size=(5, 30))
        found.append(statistics.association(x, -x + draw.normal(size=x.shape))["high"] < 0)
    assert np.mean(found) > 0.99


def test_outcomes_are_means_over_tasks_and_then_over_seeds(data):
    table = statistics.outcomes({"s": data})
    runs = data["final_error"].sel(arm="none").values
    late, early = row(table, arm="none", outcome="final_error", stage="late"), row(table, arm="none", outcome="final_error", stage="early")
    assert late["mean"] == pytest.approx(runs[:, -2:].mean())
    assert (late["low"], late["high"]) == pytest.approx(statistics.interval(runs[:, -2:].mean(axis=1)))
    assert late["seeds"] == SEEDS
    assert late["tasks"] == TASKS // 8
    change = row(table, arm="none", outcome="final_error", stage="change")
    assert change["mean"] == pytest.approx(late["mean"] - early["mean"])
    assert (change["low"], change["high"]) == pytest.approx(statistics.interval(runs[:, -2:].mean(axis=1) - runs[:, :2].mean(axis=1)))


@pytest.mark.parametrize("outcome", ["final_error", "online_error", "final_loss", "test_error"])
def test_a_gap_is_to_the_fresh_network_of_the_same_seed_and_task(data, outcome):
    if outcome == "test_error":
        data["test_error"] = data["final_error"] ** 2
        data["fresh_test_error"] = data["test_error"].sel(arm="fresh", drop=True)
    table = statistics.outcomes({"s": data})
    own, fresh = data[outcome].sel(arm="none").values, data[outcome].sel(arm="fresh").values
    found = row(table, arm="none", outcome=f"{outcome}_gap", stage="all")
    assert found["mean"] == pytest.approx((own - fresh).mean())
    assert (found["low"], found["high"]) == pytest.approx(statistics.interval((own - fresh).mean(axis=1)))
    assert row(table, arm="fresh", outcome=f"{outcome}_gap", stage="all")["mean"] == 0


def test_without_test_images_there_is_no_row_of_them(data):
    assert set(statistics.outcomes({"s": data})["outcome"]) == {
        *("final_error", "online_error", "final_loss", "final_error_gap", "online_error_gap", "final_loss_gap")
    }


def test_a_diverged_member_is_left_out_and_said(data):
    data["final_error"][0, 2, 5:] = np.nan
    found = row(statistics.outcomes({"s": data}), arm="none", outcome="final_error", stage="late")
    assert found["seeds"] == SEEDS - 1
    assert found["mean"] == pytest.approx(np.delete(data["final_error"].values[0], 2, axis=0)[:, -2:].mean())
    assert "1 diverged" in found["note"]
    again = row(statistics.correlations({"s": data}), arm="none", measure="weight_norm", block="all")
    assert again["seeds"] == SEEDS - 1
    assert "1 diverged" in again["note"]


def test_a_measure_is_correlated_with_the_error_of_the_task_that_it_precedes(data):
    table = statistics.correlations({"s": data})
    found = row(table, arm="none", measure="feature_rank", moment="old", block="hidden_1")
    x = data["feature_rank"].sel(arm="none", moment="old", block="hidden_1").values[:, 1:]
    y = data["final_error"].sel(arm="none").values[:, 1:]
    assert found["estimate"] == pytest.approx(np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]))
    assert found["tasks"] == TASKS - 1


def test_an_update_norm_counts_for_the_next_task(data):
    data["update_norm"][:, :, :-1] = data["final_error"].values[:, :, 1:]
    found = row(statistics.correlations({"s": data}), arm="none", measure="update_norm")
    assert found["estimate"] == pytest.approx(1)


def test_blocks_that_lack_a_measure_and_spectra_have_no_row(data):
    table = statistics.correlations({"s": data})
    assert table.loc[(table["measure"] == "feature_rank") & (table["block"] == "all")].empty
    assert "fisher_eigenvalue" not in set(table["measure"])


def test_a_block_that_an_arms_network_lacks_has_no_row_of_that_arm(data):
    data["feature_rank"].loc[{"arm": "none", "block": "hidden_1"}] = np.nan
    table = statistics.correlations({"s": data})
    arms = table.loc[(table["measure"] == "feature_rank") & (table["block"] == "hidden_1"), "arm"]
    assert set(arms) == set(ARMS) - {"none"}
    assert set(table["arm"]) == set(ARMS)


def test_a_constant_measure_and_too_few_tasks_say_so_in_place_of_a_number(data):
    data["weight_norm"][...] = 1.0
    found = row(statistics.correlations({"s": data}), arm="none", measure="weight_norm", block="all")
    assert np.isnan(found["estimate"])
    assert found["note"] == "constant"
    short = row(statistics.correlations({"s": data.isel(task=slice(0, 3))}), arm="none", measure="weight_norm", block="all")
    assert np.isnan(short["estimate"])
    assert short["note"] == "too few"


def test_one_seed_has_a_number_and_no_interval(data):
    found = row(statistics.correlations({"s": data.isel(seed=[0])}), arm="none", measure="weight_norm", block="all")
    assert np.isfinite(found["estimate"])
    assert np.isnan([found["low"], found["high"]]).all()
    assert "too few seeds" in found["note"]


def test_tasks_that_were_not_measured_are_left_out(data):
    data["weight_norm"][:, :, 1::2] = np.nan
    found = row(statistics.correlations({"s": data}), arm="none", measure="weight_norm", block="all")
    assert found["tasks"] == TASKS // 2
    assert found["seeds"] == SEEDS


def test_measures_are_summed_up_as_outcomes_are(data):
    table = statistics.measures({"s": data})
    runs = data["feature_rank"].sel(arm="none", moment="old", block="hidden_1").values[:, 1:]  # no old data at task 0
    found = row(table, arm="none", measure="feature_rank", moment="old", block="hidden_1", stage="late")
    assert found["mean"] == pytest.approx(runs[:, -1:].mean())
    assert (found["low"], found["high"]) == pytest.approx(statistics.interval(runs[:, -1:].mean(axis=1)))
    assert row(table, arm="none", measure="weight_norm", moment="", block="all", stage="all")["tasks"] == TASKS


def test_the_summary_is_a_row_an_arm_of_means_over_the_first_and_the_last_tasks(data):
    ranks = np.random.default_rng(1).uniform(1, 50, data["feature_rank"].shape)
    ranks[:, :, 1::2] = np.nan  # measured at every other task
    data = data.assign(fisher_effective_rank=(data["feature_rank"].dims, ranks))
    table = statistics.summary({"digits": data})
    assert list(zip(table["setting"], table["arm"], strict=True)) == [("digits", arm) for arm in ARMS]
    for place in range(len(ARMS)):
        found, errors = table.iloc[place], data["final_error"].values
        assert found["final_error_early"] == pytest.approx(errors[place, :, :2].mean())
        assert found["final_error_gap_late"] == pytest.approx((errors[place] - errors[-1])[:, -2:].mean())
        assert found["fisher_effective_rank_early"] == pytest.approx(ranks[place, :, 0, 1, 1].mean())
        assert found["fisher_effective_rank_late"] == pytest.approx(ranks[place, :, -2, 1, 1].mean())
        late = errors[place, :, -2:].mean(axis=1)
        assert (found["final_error_late_low"], found["final_error_late_high"]) == pytest.approx(statistics.interval(late))


def test_the_summary_of_a_study_without_new_data_has_no_ranks_since_those_are_of_the_coming_task(data):
    data = data.assign(fisher_effective_rank=data["feature_rank"].fillna(3.0)).sel(moment=["old"])
    table = statistics.summary({"digits": data})
    assert not [name for name in table if "rank" in name]
    assert table["final_error_early"].notna().all()
