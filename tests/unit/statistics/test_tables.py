"""Tables: compare means with numpy, and check rows, notes and bytes of all tables of a study."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from statsmodels.stats.multitest import multipletests

from plasticity.config.models import Statistics
from plasticity.errors import StudyError
from plasticity.statistics import hypotheses, resampling, summaries, tables
from plasticity.statistics.merge import add_gaps
from plasticity.statistics.setting_arrays import SettingArrays, problems_of
from plasticity.statistics.table_files import read_table

ARMS, SEEDS, TASKS = ["none", "l2(strength=0.1)", "fresh"], 5, 16
OUTCOMES = ("final_error", "online_error", "final_loss")


def random_dataset(seed=0, seeds=SEEDS, tasks=TASKS):
    """Draw the dataset of a setting, with one measure of each shape."""
    random = np.random.default_rng(seed)
    run = ("arm", "seed", "task")
    sizes = (len(ARMS), seeds, tasks)
    by_block = (*run, "block")
    by_point = (*run, "evaluation_point", "block")
    variables = {}
    for name in (*OUTCOMES, "update_norm"):
        variables[name] = (run, random.uniform(0.1, 0.9, sizes))
    variables["status"] = (run, np.zeros(sizes, np.int8))
    variables["weight_norm"] = (by_block, random.normal(size=(*sizes, 2)))
    feature_rank = random.normal(size=(*sizes, 2, 2))
    feature_rank[:, :, 0, 0] = np.nan  # task 0 has no previous task
    feature_rank[..., 1] = np.nan  # a block without this measure
    variables["feature_rank"] = (by_point, feature_rank)
    eigenvalues = random.normal(size=(*sizes, 2, 2, 3))
    variables["fisher_eigenvalue"] = ((*by_point, "rank"), eigenvalues)
    coordinates = {
        "arm": ARMS,
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": ["previous", "next"],
        "block": ["hidden_1", "all"],
    }
    data = xr.Dataset(variables, coordinates)
    baseline = data.sel(arm="fresh", drop=True)
    return add_gaps(data.assign({f"fresh_{name}": baseline[name] for name in OUTCOMES}))


def t_interval(values):
    low, high = resampling.t_interval(values)
    return float(low), float(high)


def only_row(table, **keys):
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table.loc[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


def build(data, **config):
    """Build all tables of a study with the setting `s`."""
    return tables.build_tables({"s": data}, Statistics.of({"draws": 199} | config))


def within_runs(table, **keys):
    rows = table[table["level"] == "within_run"]
    return only_row(rows, arm="none", outcome="final_error", **keys)


@pytest.fixture
def data():
    return random_dataset()


@pytest.fixture(scope="module")
def all_tables():
    return build(random_dataset())


def test_outcomes_are_means_over_tasks_and_then_over_seeds(data):
    table = summaries.outcomes({"s": data})
    values = data["final_error"].sel(arm="none").values
    early_scores = values[:, 1:3].mean(axis=1)
    late_scores = values[:, -2:].mean(axis=1)
    first, early, late, change = (
        only_row(table, arm="none", outcome="final_error", stage=stage)
        for stage in ("first", "early", "late", "change")
    )
    assert first["mean"] == pytest.approx(values[:, 0].mean())
    assert early["mean"] == pytest.approx(early_scores.mean())
    assert late["mean"] == pytest.approx(values[:, -2:].mean())
    assert (late["low"], late["high"]) == pytest.approx(t_interval(late_scores))
    assert late["seeds"] == SEEDS
    assert late["tasks"] == TASKS // 8
    assert change["mean"] == pytest.approx(late["mean"] - early["mean"])
    expected = t_interval(late_scores - early_scores)
    assert (change["low"], change["high"]) == pytest.approx(expected)


@pytest.mark.parametrize("outcome", [*OUTCOMES, "test_error"])
def test_gap_is_the_difference_to_the_baseline_of_the_same_seed_and_task(data, outcome):
    if outcome == "test_error":
        data["test_error"] = data["final_error"] ** 2
        data["fresh_test_error"] = data["test_error"].sel(arm="fresh", drop=True)
    table = summaries.outcomes({"s": add_gaps(data)})
    gaps = data[outcome].sel(arm="none").values - data[outcome].sel(arm="fresh").values
    row = only_row(table, arm="none", outcome=f"{outcome}_gap", stage="all")
    assert row["mean"] == pytest.approx(gaps.mean())
    assert (row["low"], row["high"]) == pytest.approx(t_interval(gaps.mean(axis=1)))
    baseline = only_row(table, arm="fresh", outcome=f"{outcome}_gap", stage="all")
    assert baseline["mean"] == 0


def test_study_without_test_images_has_no_test_error(data):
    table = summaries.outcomes({"s": data})
    assert set(table["outcome"]) == {*OUTCOMES, *(f"{name}_gap" for name in OUTCOMES)}


def test_diverged_run_is_left_out_of_means_and_counted_in_the_note(data):
    data["final_error"][0, 2, 5:] = np.nan
    table = summaries.outcomes({"s": data})
    row = only_row(table, arm="none", outcome="final_error", stage="late")
    complete = np.delete(data["final_error"].values[0], 2, axis=0)
    assert row["seeds"] == SEEDS - 1
    assert row["mean"] == pytest.approx(complete[:, -2:].mean())
    assert "1 diverged" in row["note"]


def test_measures_are_means_over_measured_tasks_and_then_over_seeds(data):
    table = summaries.measures({"s": data})
    keys = {"evaluation_point": "previous", "block": "hidden_1"}
    all_values = data["feature_rank"].sel(arm="none", **keys).values
    values = all_values[:, 1:]  # task 0 has no previous task
    row = only_row(table, arm="none", measure="feature_rank", stage="late", **keys)
    assert row["mean"] == pytest.approx(values[:, -2:].mean())
    expected = t_interval(values[:, -2:].mean(axis=1))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    first = only_row(table, arm="none", measure="feature_rank", stage="first", **keys)
    assert np.isnan(first["mean"])
    assert first["note"] == "not measured then"
    keys = {"evaluation_point": "", "block": "all"}
    row = only_row(table, arm="none", measure="weight_norm", stage="all", **keys)
    assert row["tasks"] == TASKS


def test_means_of_measures_are_over_the_tasks_of_the_stage_not_over_the_first_measured_ones(data):
    """With every fifth task measured, the early tasks 1 and 2 have no measure."""
    keys = {"evaluation_point": "", "block": "all"}
    data["weight_norm"].loc[{"task": data.task % 5 != 0}] = np.nan
    table = summaries.measures({"s": data})
    values = data["weight_norm"].sel(arm="none", block="all").values
    late = only_row(table, arm="none", measure="weight_norm", stage="late", **keys)
    assert late["mean"] == pytest.approx(values[:, 15].mean())
    assert late["tasks"] == 1
    for stage in ("early", "change"):
        row = only_row(table, arm="none", measure="weight_norm", stage=stage, **keys)
        assert np.isnan(row["mean"])
        assert row["note"] == "not measured then"


@pytest.mark.parametrize(("limit", "is_near"), [(100.0, True), (120.0, False)])
def test_rank_near_its_limit_is_flagged(data, limit, is_near):
    ranks = data["feature_rank"].fillna(0.0) * 0 + 95
    data = data.assign(fisher_effective_rank=ranks, fisher_rank_limit=ranks * 0 + limit)
    table = summaries.measures({"s": data})
    assert "fisher_rank_limit" not in set(table["measure"])
    row = only_row(
        table,
        arm="none",
        measure="fisher_effective_rank",
        evaluation_point="next",
        block="all",
        stage="late",
    )
    assert row["mean"] == 95
    assert row["note"] == ("near the largest possible rank, 100" if is_near else "")


def test_summary_has_one_row_per_arm_with_early_and_late_means(data):
    ranks = np.random.default_rng(1).uniform(1, 50, data["feature_rank"].shape)
    ranks[:, :, 1::2] = np.nan  # measured at every other task
    data = data.assign(fisher_effective_rank=(data["feature_rank"].dims, ranks))
    table = summaries.summary({"digits": data})
    assert table["setting"].tolist() == ["digits"] * len(ARMS)
    assert table["arm"].tolist() == ARMS
    errors = data["final_error"].values
    gaps = errors - errors[-1]
    ranks_of_network = ranks[..., 1, 1]
    for arm in range(len(ARMS)):
        row = table.iloc[arm]
        assert row["final_error_early"] == pytest.approx(errors[arm, :, 1:3].mean())
        assert row["final_error_gap_late"] == pytest.approx(gaps[arm, :, -2:].mean())
        early_ranks = ranks_of_network[arm, :, 2]
        late_ranks = ranks_of_network[arm, :, -2]
        assert row["fisher_effective_rank_early"] == pytest.approx(early_ranks.mean())
        assert row["fisher_effective_rank_late"] == pytest.approx(late_ranks.mean())
        expected = t_interval(errors[arm, :, -2:].mean(axis=1))
        interval = (row["final_error_late_low"], row["final_error_late_high"])
        assert interval == pytest.approx(expected)


def test_summary_has_no_ranks_if_curvature_uses_only_the_previous_task(data):
    data = data.assign(fisher_effective_rank=data["feature_rank"].fillna(3.0))
    table = summaries.summary({"digits": data.sel(evaluation_point=["previous"])})
    assert not [name for name in table if "rank" in name]
    assert table["final_error_early"].notna().all()


def test_measure_is_correlated_with_the_error_of_the_task_that_follows_it(data, all_tables):
    keys = {"evaluation_point": "previous", "block": "hidden_1"}
    row = within_runs(all_tables["associations"], measure="feature_rank", **keys)
    x = data["feature_rank"].sel(arm="none", **keys).values[:, 1:]
    y = data["final_error"].sel(arm="none").values[:, 1:]
    spearman = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    pearson = [scipy.stats.pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert row["estimate"] == pytest.approx(np.mean(spearman))
    assert row["pearson"] == pytest.approx(np.mean(pearson))
    assert row["tasks"] == TASKS - 1


def test_update_norm_is_correlated_with_the_error_of_the_next_task(data):
    data["update_norm"][:, :, :-1] = data["final_error"].values[:, :, 1:]
    row = within_runs(build(data)["associations"], measure="update_norm")
    assert row["estimate"] == pytest.approx(1)


def test_measures_on_fresh_networks_are_not_in_the_arrays(data):
    with_fresh_point = data.assign_coords(evaluation_point=["previous", "fresh"])
    arrays = SettingArrays.from_dataset("s", with_fresh_point)
    points = {variant.evaluation_point for variant in arrays.variants}
    assert "fresh" not in points


def test_settings_have_the_same_problem_if_everything_in_it_is_equal(data):
    def problem(network="mlp", tasks=16):
        setting = {"problem": {"tasks": tasks, "dataset": "digits"}, "network": network}
        stamped = data.assign_attrs(settings=json.dumps({"setting": setting}))
        return SettingArrays.from_dataset("s", stamped).problem

    assert problem("mlp") == problem("cnn") != ""
    assert problem(tasks=16) != problem(tasks=17)
    unknown = SettingArrays.from_dataset("s", data)
    assert problems_of([unknown]) == {"s": "s"}


def test_spectra_and_blocks_without_a_measure_have_no_row(all_tables):
    table = all_tables["associations"]
    is_missing = (table["measure"] == "feature_rank") & (table["block"] == "all")
    assert not is_missing.any()
    assert "fisher_eigenvalue" not in set(table["measure"])


def test_block_that_an_arm_lacks_has_no_row_of_that_arm(data):
    data["feature_rank"].loc[{"arm": "none", "block": "hidden_1"}] = np.nan
    table = build(data)["associations"]
    rows = table[
        (table["measure"] == "feature_rank")
        & (table["block"] == "hidden_1")
        & (table["level"] == "within_run")
    ]
    assert set(rows["arm"]) == set(ARMS) - {"none"}


@pytest.mark.parametrize("name", ["associations", "null_models", "lead_lag"])
def test_constant_measure_has_a_note_instead_of_numbers(data, name):
    data["weight_norm"][...] = 1.0
    table = build(data)[name]
    rows = table[table["measure"] == "weight_norm"]
    if "level" in rows:
        rows = rows[rows["level"] == "within_run"]
    assert len(rows)
    assert rows["estimate"].isna().all()
    assert rows["p"].isna().all()
    assert rows["note"].str.contains("constant").all()


def test_too_few_tasks_have_a_note_instead_of_an_estimate(data):
    table = build(data.isel(task=slice(0, 3)))["associations"]
    assert table["estimate"].isna().all()
    assert table["note"].str.contains("too few").all()


def test_single_seed_has_an_estimate_without_interval_and_test(data):
    table = build(data.isel(seed=[0]))["associations"]
    row = within_runs(table, measure="weight_norm", block="all")
    assert np.isfinite(row["estimate"])
    assert np.isnan([row["low"], row["high"], row["p"]]).all()
    assert "too few seeds" in row["note"]


def test_diverged_run_is_left_out_of_tests_and_counted_in_the_note(data):
    data["final_error"][0, 2, 5:] = np.nan
    all_tables = build(data)
    row = within_runs(all_tables["associations"], measure="weight_norm", block="all")
    assert row["seeds"] == SEEDS - 1
    assert "1 diverged" in row["note"]
    table = all_tables["comparisons"]
    rows = table[
        (table["arm"] == "none")
        & (table["outcome"] == "final_error")
        & (table["statistic"] == "mean")
    ]
    assert rows["note"].str.contains("1 diverged").all()
    assert (rows["seeds"] == SEEDS - 1).all()


def test_unmeasured_tasks_are_left_out(data):
    data["weight_norm"][:, :, 1::2] = np.nan
    row = within_runs(build(data)["associations"], measure="weight_norm", block="all")
    assert row["tasks"] == TASKS // 2
    assert row["seeds"] == SEEDS


def test_same_study_gives_the_same_bytes(data, all_tables):
    rebuilt = build(data)
    for name, table in all_tables.items():
        assert table.to_csv() == rebuilt[name].to_csv(), name


def test_another_setting_changes_no_unadjusted_row(data, all_tables):
    settings = {"s": data, "t": random_dataset(seed=1)}
    more_tables = tables.build_tables(settings, Statistics(draws=199))
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
    rows = more_tables["associations"].query("setting == 's'")[unadjusted]
    assert rows.reset_index(drop=True).equals(all_tables["associations"][unadjusted])


def test_rows_without_an_estimate_have_a_note_after_a_round_trip_through_csv(all_tables, tmp_path):
    for name, table in all_tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        read = read_table(tmp_path / f"{name}.csv")
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


def test_hypothesis_without_evidence_is_undecided():
    table = build(random_dataset(seeds=12), hypotheses=[H1])["hypotheses"]
    assert list(table["verdict"]) == ["undecided"]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.1, 0.1, "no effect larger than 0.1"),
        (0.02, 0.09, "no effect larger than 0.1"),
        (-0.1001, 0.0, "undecided"),
        (0.0, 0.11, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_effect_is_negligible_if_its_whole_interval_lies_within_the_margin(low, high, verdict):
    hypothesis = Statistics.of({"hypotheses": [H1]}).hypotheses[0]
    numbers = {"estimate": 0.05, "low": low, "high": high, "power": 0.9, "note": ""}
    row = pd.Series({**numbers, "p_adjusted": 0.2})
    assert hypotheses._verdict(hypothesis, row, margin=0.1) == verdict
    significant = pd.Series({**numbers, "p_adjusted": 0.01})
    assert hypotheses._verdict(hypothesis, significant, margin=0.1) == "supported"


@pytest.mark.parametrize(
    ("power", "verdict"),
    [(0.49, "could not have been found"), (0.5, "undecided"), (np.nan, "undecided")],
)
def test_undecided_hypothesis_without_power_could_not_have_been_found(power, verdict):
    hypothesis = Statistics.of({"hypotheses": [H1]}).hypotheses[0]
    numbers = {"estimate": 0.1, "low": -0.2, "high": 0.4, "p_adjusted": 0.3, "note": ""}
    row = pd.Series({**numbers, "power": power})
    assert hypotheses._verdict(hypothesis, row, margin=0.1) == verdict


def test_five_seeds_have_no_power_to_compare_arms(data):
    row = build(data, hypotheses=[H2])["hypotheses"].iloc[0]
    assert row["power"] == 0
    assert row["verdict"] == "could not have been found"
    assert np.isfinite([row["estimate"], row["low"], row["high"]]).all()


def test_correlations_and_differences_of_errors_have_their_own_margins():
    data = random_dataset(seeds=12, tasks=60)
    data["final_error"][1] = data["final_error"][0]
    data["final_error"][1] += 1e-3 * data["weight_norm"].values[1, ..., 0]
    margins = {"negligible": 0.9, "negligible_difference": 0.05}
    table = build(data, hypotheses=[H1, H2], **margins)["hypotheses"].set_index("hypothesis")
    assert table.loc["H1", "verdict"] == "no effect larger than 0.9"
    assert table.loc["H2", "verdict"] == "no effect larger than 0.05"


def test_equivalence_is_concluded_wrongly_in_at_most_2_5_percent_of_studies():
    """At the margin itself, which is no negligible effect; 7 seeds, Student's t."""
    values = 0.1 + 0.02 * np.random.default_rng(0).normal(size=(4000, 7))
    low, high = resampling.t_interval(values)
    hypothesis = Statistics.of({"hypotheses": [H1]}).hypotheses[0]
    rows = pd.DataFrame({"low": low, "high": high}).assign(p_adjusted=0.2, power=0.9, note="")
    verdicts = [hypotheses._verdict(hypothesis, row, margin=0.1) for _, row in rows.iterrows()]
    rate = np.mean([verdict != "undecided" for verdict in verdicts])
    assert rate == pytest.approx(0.025, abs=3 * np.sqrt(0.025 * 0.975 / 4000))


def test_hypotheses_are_supported_or_contradicted_by_their_direction():
    data = random_dataset(seeds=12)
    noise = 0.01 * data["weight_norm"].values[..., 1]
    data["weight_norm"][..., 1] = data["final_error"].values + noise
    data["final_error"][1] = data["final_error"][0] - 0.5
    h3 = H1 | {"name": "H3", "direction": "negative"}
    all_tables = build(data, hypotheses=[H1, H2, h3])
    table = all_tables["hypotheses"].set_index("hypothesis")
    assert list(table["verdict"]) == ["supported", "supported", "contradicted"]
    assert table.loc["H1", "p_adjusted"] >= table.loc["H1", "p"]
    families = all_tables["null_models"]["family"]
    assert (families == "confirmatory").sum() == 1
    assert set(families) == {"confirmatory", "exploratory", ""}


def test_hypothesis_without_a_block_uses_the_preferred_variant():
    data = random_dataset(seeds=12)
    hypothesis = H1 | {"measure": "feature_rank"}
    all_tables = build(data, hypotheses=[hypothesis])
    null_rows = all_tables["null_models"]
    declared = null_rows[null_rows["family"] == "confirmatory"]
    assert declared["evaluation_point"].tolist() == ["next"]


def test_null_models_have_only_rows_that_are_read_and_keep_their_adjusted_p(monkeypatch):
    data = random_dataset(seeds=12)
    hypothesis = H1 | {"measure": "feature_rank", "outcome": "online_error", "block": "hidden_1"}
    cut = build(data, hypotheses=[hypothesis | {"evaluation_point": "previous"}])
    monkeypatch.setattr(hypotheses, "_without_unread_rows", lambda null_rows, declared: null_rows)
    complete = build(data, hypotheses=[hypothesis | {"evaluation_point": "previous"}])
    rows = cut["null_models"]
    declared = rows["family"] == "confirmatory"
    assert rows.loc[declared, "outcome"].tolist() == ["online_error"]
    others = rows[~declared]
    assert set(others["outcome"]) == {"final_error", "final_error_gap"}
    assert not others.duplicated(["arm", "outcome", "measure", "null_model"]).any()
    assert set(others.loc[others["measure"] == "weight_norm", "block"]) == {"all"}
    assert set(others.loc[others["measure"] == "feature_rank", "evaluation_point"]) == {"next"}
    assert len(rows) < len(complete["null_models"]) / 2
    pd.testing.assert_frame_equal(rows, complete["null_models"].loc[rows.index])
    pd.testing.assert_frame_equal(cut["associations"], complete["associations"])
    pd.testing.assert_frame_equal(cut["hypotheses"], complete["hypotheses"])


def test_hypothesis_about_an_unmeasured_quantity_is_refused_by_name(data):
    with pytest.raises(StudyError, match=r"hypothesis H1 .* matches nothing that was measured"):
        build(data, hypotheses=[H1 | {"measure": "wieght_norm"}])


def test_declared_pairs_of_arms_are_compared(data):
    reverse = {"name": "H3", "arm": "none", "versus": "l2(strength=0.1)", "direction": "positive"}
    all_tables = build(data, hypotheses=[H2, H2 | reverse])
    estimate, reverse_estimate = all_tables["hypotheses"]["estimate"]
    assert estimate == -reverse_estimate != 0
    of_none = all_tables["comparisons"].query("arm == 'none'")
    assert set(of_none["versus"]) == {"", "fresh", "l2(strength=0.1)"}


def test_undeclared_pairs_of_arms_are_not_compared(all_tables):
    of_none = all_tables["comparisons"].query("arm == 'none'")
    assert set(of_none["versus"]) == {"", "fresh"}


def test_hypothesis_with_too_few_seeds_or_tasks_has_that_as_verdict(data):
    few_seeds = build(data.isel(seed=[0, 1, 2]), hypotheses=[H1])["hypotheses"]
    assert list(few_seeds["verdict"]) == ["too few seeds"]
    few_tasks = build(data.isel(task=slice(0, 4)), hypotheses=[H1])["hypotheses"]
    assert list(few_tasks["verdict"]) == ["too few tasks"]


def test_hypothesis_has_one_test_per_setting_and_its_family_is_adjusted_by_holm(data):
    h3 = H2 | {"name": "H3", "settings": ["t"]}
    config = Statistics.of({"draws": 199, "hypotheses": [H1, H2, h3]})
    settings = {"s": data, "t": random_dataset(seed=1)}
    table = tables.build_tables(settings, config)["hypotheses"]
    assert table["hypothesis"].tolist() == ["H1", "H1", "H2", "H2", "H3"]
    assert table["setting"].tolist() == ["s", "t", "s", "t", "t"]
    holm = multipletests(table["p"], method="holm")[1]
    np.testing.assert_allclose(table["p_adjusted"], holm)
    benjamini_hochberg = multipletests(table["p"], method="fdr_bh")[1]
    assert not np.allclose(table["p_adjusted"], benjamini_hochberg)


def test_adjusted_p_values_equal_worked_examples():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    # Holm: 4 · 0.005, 3 · 0.01, 2 · 0.03, and then not less than the last
    np.testing.assert_allclose(hypotheses._corrected(p, "holm"), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(hypotheses._corrected(p, "fdr_bh"), [0.02, 0.04, np.nan, 0.04, 0.02])


def test_strongest_null_is_the_beaten_one_with_the_weakest_assumptions():
    data = random_dataset(seeds=12, tasks=30)
    noise = 0.05 * data["weight_norm"].values[..., 1]
    data["weight_norm"][..., 1] = data["final_error"].values + noise
    table = build(data)["associations"]
    related = within_runs(table, measure="weight_norm", block="all")
    unrelated = within_runs(table, measure="weight_norm", block="hidden_1")
    assert related["strongest_null_model"] == "mismatched"
    assert unrelated["strongest_null_model"] == "none"


def test_statements_contain_numbers_of_the_tables(all_tables):
    statements = all_tables["statements"]
    topics = {"outcomes", "consistency", "lead_lag", "comparisons"}
    assert topics <= set(statements["about"])
    row = only_row(
        all_tables["comparisons"],
        arm="l2(strength=0.1)",
        versus="none",
        outcome="final_error",
        stage="late",
        statistic="mean_difference",
    )
    sentences = statements.loc[statements["about"] == "comparisons", "statement"]
    assert any(f"{row['estimate']:+.3f}" in sentence for sentence in sentences)


def statement_about_loss(data):
    statements = build(data)["statements"]
    (sentence,) = statements.loc[statements["about"] == "loss", "statement"]
    return sentence


@pytest.mark.parametrize(
    ("loss", "verdict"), [(0.5, "plasticity is lost"), (0.0, "plasticity is kept")]
)
def test_loss_of_a_setting_is_stated_with_the_error_of_the_baseline(data, loss, verdict):
    data["final_error"][:] = 0.3 + 0.001 * data["final_error"].values
    data["final_error"].loc[{"arm": "none", "task": slice(TASKS - 2, None)}] += loss
    data["fresh_final_error"] = data["final_error"].sel(arm="fresh", drop=True)
    sentence = statement_about_loss(add_gaps(data))
    late = data["final_error"].sel(arm="none").values[:, -2:].mean(axis=1)
    low, high = t_interval(late)
    assert f"and {late.mean():.3f} on late ones (95 % interval {low:.2f} to {high:.2f})" in sentence
    baseline = "where that of a fresh network is"
    assert f"{baseline} 0.300" in sentence or f"{baseline} 0.301" in sentence
    assert sentence.endswith(f": {verdict}.")


def test_setting_whose_runs_all_diverged_is_stated(data):
    data["final_error"].loc[{"arm": "none", "task": slice(3, None)}] = np.nan
    assert statement_about_loss(data) == (
        "s: no seed without an intervention came to the end "
        "(5 diverged or with gaps; too few seeds for an interval)."
    )


def test_building_tables_imports_no_torch():
    code = "import sys, plasticity.statistics.tables; sys.exit('torch' in sys.modules)"
    scripts = Path(tables.__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(scripts)}, check=False
    )
    assert process.returncode == 0
