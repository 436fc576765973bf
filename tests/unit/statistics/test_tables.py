"""Tables of means against numpy, and every table of a study: rows, notes, bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from statsmodels.stats.multitest import multipletests

from plasticity import statistics
from plasticity.config.models import Statistics
from plasticity.errors import StudyError
from plasticity.statistics import hypotheses, resampling, summaries, tables
from plasticity.statistics.panels import Panel

ARMS, SEEDS, TASKS = ["none", "l2(strength=0.1)", "fresh"], 5, 16


def setting(draw, arms=ARMS, seeds=SEEDS, tasks=TASKS):
    """A setting's dataset with drawn outcomes and one measure of each shape."""
    member = ("arm", "seed", "task")
    sizes = (len(arms), seeds, tasks)
    data = xr.Dataset(
        {
            name: (member, draw.uniform(0.1, 0.9, sizes))
            for name in ("final_error", "online_error", "final_loss", "update_norm")
        }
        | {
            "status": (member, np.zeros(sizes, np.int8)),
            "weight_norm": ((*member, "block"), draw.normal(size=(*sizes, 2))),
            "feature_rank": (
                (*member, "evaluation_point", "block"),
                draw.normal(size=(*sizes, 2, 2)),
            ),
            "fisher_eigenvalue": (
                (*member, "evaluation_point", "block", "rank"),
                draw.normal(size=(*sizes, 2, 2, 3)),
            ),
        },
        {
            "arm": arms,
            "seed": range(seeds),
            "task": range(tasks),
            "evaluation_point": ["previous", "next"],
            "block": ["hidden_1", "all"],
        },
    )
    data["feature_rank"][:, :, 0, 0] = np.nan  # no old data at task 0
    data["feature_rank"][..., 1] = np.nan  # a block that does not have the measure
    outcomes = ("final_error", "online_error", "final_loss")
    return data.assign(
        {f"fresh_{name}": data[name].sel(arm="fresh", drop=True) for name in outcomes}
    )


def interval(values):
    return tuple(map(float, resampling.t_interval(values)))


@pytest.fixture
def data():
    return setting(np.random.default_rng(0))


def row(table, **keys):
    found = table.loc[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_outcomes_are_means_over_tasks_and_then_over_seeds(data):
    table = summaries.outcomes({"s": data})
    runs = data["final_error"].sel(arm="none").values
    late, early = (
        row(table, arm="none", outcome="final_error", stage="late"),
        row(table, arm="none", outcome="final_error", stage="early"),
    )
    assert late["mean"] == pytest.approx(runs[:, -2:].mean())
    assert (late["low"], late["high"]) == pytest.approx(interval(runs[:, -2:].mean(axis=1)))
    assert late["seeds"] == SEEDS
    assert late["tasks"] == TASKS // 8
    change = row(table, arm="none", outcome="final_error", stage="change")
    assert change["mean"] == pytest.approx(late["mean"] - early["mean"])
    assert (change["low"], change["high"]) == pytest.approx(
        interval(runs[:, -2:].mean(axis=1) - runs[:, :2].mean(axis=1))
    )


@pytest.mark.parametrize("outcome", ["final_error", "online_error", "final_loss", "test_error"])
def test_a_gap_is_to_the_fresh_network_of_the_same_seed_and_task(data, outcome):
    if outcome == "test_error":
        data["test_error"] = data["final_error"] ** 2
        data["fresh_test_error"] = data["test_error"].sel(arm="fresh", drop=True)
    table = summaries.outcomes({"s": data})
    own, fresh = data[outcome].sel(arm="none").values, data[outcome].sel(arm="fresh").values
    found = row(table, arm="none", outcome=f"{outcome}_gap", stage="all")
    assert found["mean"] == pytest.approx((own - fresh).mean())
    assert (found["low"], found["high"]) == pytest.approx(interval((own - fresh).mean(axis=1)))
    assert row(table, arm="fresh", outcome=f"{outcome}_gap", stage="all")["mean"] == 0


def test_without_test_images_there_is_no_row_of_them(data):
    assert set(summaries.outcomes({"s": data})["outcome"]) == {
        *(
            "final_error",
            "online_error",
            "final_loss",
            "final_error_gap",
            "online_error_gap",
            "final_loss_gap",
        )
    }


def test_a_diverged_member_is_left_out_and_said(data):
    data["final_error"][0, 2, 5:] = np.nan
    found = row(summaries.outcomes({"s": data}), arm="none", outcome="final_error", stage="late")
    assert found["seeds"] == SEEDS - 1
    assert found["mean"] == pytest.approx(
        np.delete(data["final_error"].values[0], 2, axis=0)[:, -2:].mean()
    )
    assert "1 diverged" in found["note"]


def test_measures_are_summed_up_as_outcomes_are(data):
    table = summaries.measures({"s": data})
    runs = (
        data["feature_rank"]
        .sel(arm="none", evaluation_point="previous", block="hidden_1")
        .values[:, 1:]
    )  # no old data at task 0
    found = row(
        table,
        arm="none",
        measure="feature_rank",
        evaluation_point="previous",
        block="hidden_1",
        stage="late",
    )
    assert found["mean"] == pytest.approx(runs[:, -1:].mean())
    assert (found["low"], found["high"]) == pytest.approx(interval(runs[:, -1:].mean(axis=1)))
    assert (
        row(
            table, arm="none", measure="weight_norm", evaluation_point="", block="all", stage="all"
        )["tasks"]
        == TASKS
    )


def test_the_summary_is_a_row_an_arm_of_means_over_the_first_and_the_last_tasks(data):
    ranks = np.random.default_rng(1).uniform(1, 50, data["feature_rank"].shape)
    ranks[:, :, 1::2] = np.nan  # measured at every other task
    data = data.assign(fisher_effective_rank=(data["feature_rank"].dims, ranks))
    table = summaries.summary({"digits": data})
    assert list(zip(table["setting"], table["arm"], strict=True)) == [
        ("digits", arm) for arm in ARMS
    ]
    for place in range(len(ARMS)):
        found, errors = table.iloc[place], data["final_error"].values
        assert found["final_error_early"] == pytest.approx(errors[place, :, :2].mean())
        assert found["final_error_gap_late"] == pytest.approx(
            (errors[place] - errors[-1])[:, -2:].mean()
        )
        assert found["fisher_effective_rank_early"] == pytest.approx(
            ranks[place, :, 0, 1, 1].mean()
        )
        assert found["fisher_effective_rank_late"] == pytest.approx(
            ranks[place, :, -2, 1, 1].mean()
        )
        late = errors[place, :, -2:].mean(axis=1)
        assert (found["final_error_late_low"], found["final_error_late_high"]) == pytest.approx(
            interval(late)
        )


def test_the_summary_of_a_study_without_new_data_has_no_ranks_since_those_are_of_the_coming_task(
    data,
):
    data = data.assign(fisher_effective_rank=data["feature_rank"].fillna(3.0)).sel(
        evaluation_point=["previous"]
    )
    table = summaries.summary({"digits": data})
    assert not [name for name in table if "rank" in name]
    assert table["final_error_early"].notna().all()


def atomic_write(data, **how):
    return tables.tables({"s": data}, Statistics.of({"draws": 199} | how))


@pytest.fixture(scope="module")
def all_tables():
    return atomic_write(setting(np.random.default_rng(0)))


def within(table, **keys):
    return row(table[table["level"] == "within_run"], arm="none", outcome="final_error", **keys)


def test_a_measure_is_correlated_with_the_error_of_the_task_that_it_precedes(data, all_tables):
    found = within(
        all_tables["associations"],
        measure="feature_rank",
        evaluation_point="previous",
        block="hidden_1",
    )
    x = (
        data["feature_rank"]
        .sel(arm="none", evaluation_point="previous", block="hidden_1")
        .values[:, 1:]
    )
    y = data["final_error"].sel(arm="none").values[:, 1:]
    assert found["estimate"] == pytest.approx(
        np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    )
    assert found["pearson"] == pytest.approx(
        np.mean([scipy.stats.pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)])
    )
    assert found["tasks"] == TASKS - 1


def test_an_update_norm_counts_for_the_next_task(data):
    data["update_norm"][:, :, :-1] = data["final_error"].values[:, :, 1:]
    assert within(atomic_write(data)["associations"], measure="update_norm")[
        "estimate"
    ] == pytest.approx(1)


def test_blocks_that_lack_a_measure_spectra_and_fresh_networks_have_no_row(data):
    assert {"fresh"}.isdisjoint(
        key.evaluation_point
        for key in Panel.of("s", data.assign_coords(evaluation_point=["previous", "fresh"])).keys
    )
    table = atomic_write(data)["associations"]
    assert table.loc[(table["measure"] == "feature_rank") & (table["block"] == "all")].empty
    assert "fisher_eigenvalue" not in set(table["measure"])


def test_a_block_that_an_arms_network_lacks_has_no_row_of_that_arm(data):
    data["feature_rank"].loc[{"arm": "none", "block": "hidden_1"}] = np.nan
    table = atomic_write(data)["associations"]
    found = table.loc[
        (table["measure"] == "feature_rank")
        & (table["block"] == "hidden_1")
        & (table["level"] == "within_run"),
        "arm",
    ]
    assert set(found) == set(ARMS) - {"none"}


def test_constant_and_too_few_say_so_in_place_of_a_number(data):
    data["weight_norm"][...] = 1.0
    made = atomic_write(data)
    for name in ("associations", "nulls", "lead_lag"):
        table = made[name]
        rows = table[
            (table["measure"] == "weight_norm") & (table.get("level", "within_run") == "within_run")
        ]
        assert len(rows)
        assert rows["estimate"].isna().all()
        assert rows["p"].isna().all()
        assert rows["note"].str.contains("constant").all(), name
    short = atomic_write(data.isel(task=slice(0, 3)))["associations"]
    assert short["estimate"].isna().all()
    assert short["note"].str.contains("too few").all()


def test_few_seeds_have_no_test_and_say_so(data):
    found = within(
        atomic_write(data.isel(seed=[0]))["associations"], measure="weight_norm", block="all"
    )
    assert np.isfinite(found["estimate"])
    assert np.isnan([found["low"], found["high"], found["p"]]).all()
    assert "too few seeds" in found["note"]


def test_a_diverged_member_is_left_out_of_tests_and_said(data):
    data["final_error"][0, 2, 5:] = np.nan
    made = atomic_write(data)
    found = within(made["associations"], measure="weight_norm", block="all")
    assert found["seeds"] == SEEDS - 1
    assert "1 diverged" in found["note"]
    rows = made["comparisons"]
    rows = rows[
        (rows["arm"] == "none") & (rows["outcome"] == "final_error") & (rows["statistic"] == "mean")
    ]
    assert rows["note"].str.contains("1 diverged").all()
    assert (rows["seeds"] == SEEDS - 1).all()


def test_tasks_that_were_not_measured_are_left_out(data):
    data["weight_norm"][:, :, 1::2] = np.nan
    found = within(atomic_write(data)["associations"], measure="weight_norm", block="all")
    assert found["tasks"] == TASKS // 2
    assert found["seeds"] == SEEDS


def test_the_same_study_gives_the_same_bytes_and_a_further_setting_changes_no_row_of_this_one(
    data, all_tables
):
    again = atomic_write(data)
    for name, table in all_tables.items():
        assert table.to_csv() == again[name].to_csv(), name
    more = tables.tables({"s": data, "t": setting(np.random.default_rng(1))}, Statistics(draws=199))
    unadjusted = [
        "setting",
        "level",
        "arm",
        "outcome",
        "measure",
        "evaluation_point",
        "block",
        "estimate",
        "low",
        "high",
        "p",
    ]
    held = more["associations"].query("setting == 's'")[unadjusted].reset_index(drop=True)
    assert held.equals(all_tables["associations"][unadjusted])


def test_every_row_without_a_number_says_why_and_tables_survive_a_file(all_tables, tmp_path):
    for name, table in all_tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        read = statistics.read_table(tmp_path / f"{name}.csv")
        assert list(read) == list(table)
        if "estimate" in read:
            missing = read[read["estimate"].isna()]
            assert (missing["note"] != "").all(), name
            assert (missing["interval"] == "").all(), name


H1 = {"name": "H1", "measure": "weight_norm", "outcome": "final_error", "direction": "positive"}
H2 = {
    "name": "H2",
    "arm": "l2(strength=0.1)",
    "versus": "none",
    "outcome": "final_error",
    "direction": "negative",
}


def test_a_declared_hypothesis_is_found_contradicted_in_the_other_direction_and_undecided_without_evidence():
    data = setting(np.random.default_rng(0), seeds=12)
    undecided = atomic_write(data, hypotheses=[H1])["hypotheses"]
    data["weight_norm"][..., 1] = (
        data["final_error"].values + 0.01 * data["weight_norm"].values[..., 1]
    )
    data["final_error"][1] = data["final_error"][0] - 0.5
    found = atomic_write(data, hypotheses=[H1, H2, H1 | {"name": "H3", "direction": "negative"}])
    table = found["hypotheses"].set_index("hypothesis")
    assert list(undecided["verdict"]) == ["undecided"]
    assert list(table["verdict"]) == ["supported", "supported", "contradicted"]
    nulls = found["nulls"]
    declared = nulls[nulls["family"] == "confirmatory"]
    assert len(declared) == 1
    assert set(nulls["family"]) == {"confirmatory", "exploratory", ""}
    assert table.loc["H1", "p_adjusted"] >= table.loc["H1", "p"]


def test_a_hypothesis_about_what_was_not_measured_is_refused_by_name(data):
    with pytest.raises(StudyError, match="hypothesis H1 is about something that no setting has"):
        atomic_write(data, hypotheses=[H1 | {"measure": "wieght_norm"}])


def test_any_two_arms_of_a_hypothesis_are_compared(data):
    turned = {"arm": "none", "versus": "l2(strength=0.1)", "direction": "positive"}
    found = atomic_write(data, hypotheses=[H2, H2 | turned | {"name": "H3"}])
    one, other = found["hypotheses"]["estimate"]
    assert one == -other != 0
    assert set(found["comparisons"].query("arm == 'none'")["versus"]) == {
        "",
        "fresh",
        "l2(strength=0.1)",
    }
    assert set(atomic_write(data)["comparisons"].query("arm == 'none'")["versus"]) == {"", "fresh"}


def test_a_hypothesis_with_too_few_seeds_or_tasks_says_so_and_stops_nothing(data):
    few = atomic_write(data.isel(seed=[0, 1, 2]), hypotheses=[H1])["hypotheses"]
    assert list(few["verdict"]) == ["too few seeds"]
    short = atomic_write(data.isel(task=slice(0, 4)), hypotheses=[H1])["hypotheses"]
    assert list(short["verdict"]) == ["too few tasks"]


def test_a_hypothesis_is_a_test_in_each_of_its_settings_and_none_over_all_of_them(data):
    both = {"s": data, "t": setting(np.random.default_rng(1))}
    found = tables.tables(
        both,
        Statistics.of(
            {"draws": 199, "hypotheses": [H1, H2, H2 | {"name": "H3", "settings": ["t"]}]}
        ),
    )["hypotheses"]
    assert list(zip(found["hypothesis"], found["setting"], strict=True)) == [
        ("H1", "s"),
        ("H1", "t"),
        ("H2", "s"),
        ("H2", "t"),
        ("H3", "t"),
    ]
    np.testing.assert_allclose(
        found["p_adjusted"], multipletests(found["p"], method="holm")[1], err_msg="one family"
    )
    assert not np.allclose(found["p_adjusted"], multipletests(found["p"], method="fdr_bh")[1]), (
        "the two methods differ here"
    )


def test_holm_and_benjamini_hochberg_on_worked_examples():
    p = np.array(
        [0.01, 0.04, np.nan, 0.03, 0.005]
    )  # Holm: 4 · 0.005, 3 · 0.01, then 2 · 0.03, and no less than that
    np.testing.assert_allclose(hypotheses._corrected(p, "holm"), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(hypotheses._corrected(p, "fdr_bh"), [0.02, 0.04, np.nan, 0.04, 0.02])


def test_the_strongest_null_is_the_one_that_assumes_least_among_those_beaten():
    data = setting(np.random.default_rng(0), seeds=12, tasks=30)
    data["weight_norm"][..., 1] = (
        data["final_error"].values + 0.05 * data["weight_norm"].values[..., 1]
    )
    table = atomic_write(data)["associations"]
    assert within(table, measure="weight_norm", block="all")["strongest_null"] == "mismatched"
    assert within(table, measure="weight_norm", block="hidden_1")["strongest_null"] == "none"


def test_statements_take_their_numbers_from_the_tables(all_tables):
    said = all_tables["statements"]
    assert {"consistency", "counterexamples", "lead_lag", "comparisons"} <= set(said["about"])
    found = row(
        all_tables["comparisons"],
        arm="l2(strength=0.1)",
        versus="none",
        outcome="final_error",
        stage="late",
        statistic="mean_difference",
    )
    assert any(
        f"{found['estimate']:+.3f}" in one
        for one in said.loc[said["about"] == "comparisons", "statement"]
    )


@pytest.mark.parametrize(
    ("loss", "verdict"), [(0.5, "plasticity is lost"), (0.0, "plasticity is kept")]
)
def test_what_was_lost_is_said_of_each_setting_beside_a_fresh_network(data, loss, verdict):
    data["final_error"][:] = 0.3 + 0.001 * data["final_error"].values
    data["final_error"].loc[{"arm": "none", "task": slice(TASKS - 2, None)}] += loss
    data["fresh_final_error"] = data["final_error"].sel(arm="fresh", drop=True)
    said = atomic_write(data)["statements"]
    (sentence,) = said.loc[said["about"] == "loss", "statement"]
    late = data["final_error"].sel(arm="none").values[:, -2:].mean(axis=1)
    low, high = interval(late)
    assert f"and {late.mean():.3f} on the last (95 % interval {low:.2f} to {high:.2f})" in sentence
    assert (
        "where that of a fresh network is 0.300" in sentence
        or "where that of a fresh network is 0.301" in sentence
    )
    assert sentence.endswith(f": {verdict}.")


def test_a_setting_whose_every_seed_diverged_without_an_intervention_says_so(data):
    data["final_error"].loc[{"arm": "none", "task": slice(3, None)}] = np.nan
    said = atomic_write(data)["statements"]
    (sentence,) = said.loc[said["about"] == "loss", "statement"]
    assert (
        sentence
        == "s: no seed without an intervention came to the end (5 diverged or with gaps; too few seeds for an interval)."
    )


def test_no_torch_is_imported():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, plasticity.statistics.tables; sys.exit('torch' in sys.modules)",
        ],
        env={"PYTHONPATH": str(Path(statistics.__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0
