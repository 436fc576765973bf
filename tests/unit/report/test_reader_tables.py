"""Tables for people: each rule on a made-up table, and all rules on the default study's tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plasticity.report.reader_tables import for_readers, format_number
from plasticity.statistics.explanations import explanations
from plasticity.statistics.table_files import read_table

DIGITS = Path(__file__).parents[3] / "docs" / "digits"
TITLES = {"a_b": "MNIST, shuffled labels, ReLU"}
PATHS = {
    path.name.partition(".")[0]: path
    for path in sorted([*DIGITS.glob("tables/*.csv"), *DIGITS.glob("drawn/*.csv.gz")])
}
WITHOUT_VALUES = {"hypotheses", "population", "tuning"}  # in the default study


def rewritten(name="t", **columns):
    """Rewrite a made-up table; a column is a list, or a value for all rows."""
    table = for_readers(name, pd.DataFrame(columns), TITLES)
    assert table is not None
    return table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.86354, "0.8635"),
        (0.1 + 0.2, "0.3"),
        (-12.34567, "-12.35"),
        (123456.7, "123457"),
        (1234567.0, "1234567"),
        (0.0000123456, "1.235e-05"),
        (0.0, "0"),
    ],
)
def test_number_has_at_most_four_significant_digits(value, text):
    assert format_number(value) == text


def test_estimate_and_interval_share_a_cell():
    table = rewritten(measure=["weight_norm"], estimate=[0.86], low=[0.84], high=[0.88])
    assert list(table) == ["measure", "estimate [95 % interval]"]
    assert table["estimate [95 % interval]"].tolist() == ["0.86 [0.84, 0.88]"]


def test_bounds_with_a_name_belong_to_the_column_of_this_name():
    table = rewritten(
        "counterexamples",
        loss=[0.1],
        loss_low=[0.05],
        loss_high=[0.15],
        change=[-0.2],
        change_low=[-0.3],
        change_high=[-0.1],
    )
    assert table.iloc[0].to_dict() == {
        "growth of the gap [95 % interval]": "0.1 [0.05, 0.15]",
        "change of the measure [95 % interval]": "-0.2 [-0.3, -0.1]",
    }


def test_interval_without_an_estimate_is_a_cell_of_its_own():
    table = rewritten(estimate=[0.5, 0.6], prediction_low=[0.1, np.nan], prediction_high=[0.9, 1])
    assert table["next problem [95 % interval]"].tolist() == ["[0.1, 0.9]", "none"]


def test_estimates_without_any_interval_stay_numbers():
    table = rewritten(estimate=[0.123456, 0.5], low=np.nan, high=np.nan, note="few seeds")
    assert table["estimate"].tolist() == [0.1235, 0.5]
    assert table["note"].tolist() == ["few seeds"] * 2


def test_missing_estimate_is_a_word_with_its_note():
    table = rewritten(
        estimate=[np.nan, 0.5, np.nan],
        low=[np.nan, 0.4, np.nan],
        high=[np.nan, 0.6, np.nan],
        p_adjusted=[np.nan, 0.01, np.nan],
        note=["constant", "1 diverged", ""],
    )
    cells = table["estimate [95 % interval]"].tolist()
    assert cells == ["not tested (constant)", "0.5 [0.4, 0.6]", "not tested"]
    assert table["adjusted p"].tolist() == ["not tested", "0.01", "not tested"]
    assert table["note"].tolist() == ["", "1 diverged", ""]


def test_note_that_all_cells_have_is_no_column():
    table = rewritten(estimate=[np.nan, 0.5], low=[np.nan, 0.4], high=[np.nan, 1], note=["x", ""])
    assert list(table) == ["estimate [95 % interval]"]


def test_missing_mean_was_not_measured():
    table = rewritten(
        "measures",
        mean=[np.nan, np.nan, 1],
        low=[np.nan, np.nan, 0.5],
        high=[np.nan, np.nan, 2],
        note=["not measured then", "2 diverged", ""],
    )
    cells = table["mean [95 % interval]"].tolist()
    assert cells == ["not measured then", "not measured (2 diverged)", "1 [0.5, 2]"]


def test_numbers_of_explanations_have_their_own_notes():
    table = rewritten(
        "explanations",
        measure=["weight_norm", "dead_fraction"],
        claim=[1, -1],
        auc=[np.nan, 0.5],
        auc_low=[np.nan, 0.4],
        auc_high=[np.nan, 0.6],
        auc_note=["no arm", ""],
        tau=[np.nan, 0.25],
        tau_low=np.nan,
        tau_high=np.nan,
        tau_note=["no interventions", "one problem"],
        counterexamples=[np.nan, 2],
        counterexamples_note=["nothing is known", ""],
    )
    assert table.iloc[0].to_dict() == {
        "measure": "weight norm",
        "as plasticity is lost, it": "rises",
        "AUC over arms [95 % interval]": "not tested (no arm)",
        "τ, positive as claimed": "not tested (no interventions)",
        "counterexamples": "not tested (nothing is known)",
    }
    assert table.iloc[1, 2:].tolist() == ["0.5 [0.4, 0.6]", "0.25 (one problem)", "2"]


def test_settings_arms_and_measures_have_the_names_of_figures():
    table = rewritten(
        "comparisons",
        setting=["a_b", "all", "unknown_one"],
        arm=["l2_init(strength=0.01)", "none", "fresh"],
        versus=["none", "", "fresh"],
        outcome=["final_error", "final_error_gap", "online_error"],
        estimate=[1, 2, 3],
    )
    assert table["setting"].tolist() == [TITLES["a_b"], "all settings", "unknown one"]
    assert table["arm"].tolist() == ["L2 Init 0.01", "no intervention", "from scratch"]
    assert table["compared with"].tolist() == ["no intervention", "none", "from scratch"]
    outcomes = ["final error", "gap to a fresh network", "online error"]
    assert table["outcome"].tolist() == outcomes


def test_measures_that_are_compared_or_combined_have_their_names():
    table = rewritten(
        measure=["ggn_stable_rank", "weight_norm + dead_fraction"],
        versus=["task", "fisher_effective_rank"],
        estimate=[1, 2],
    )
    assert table["measure"].tolist() == ["GGN stable rank", "weight norm + dead units (share)"]
    assert table["compared with"].tolist() == ["task", "Fisher effective rank"]


def test_headings_are_words():
    table = rewritten(
        "summary",
        final_error_gap_late=[0.1],
        fisher_effective_rank_early=[3.5],
        final_loss_gap=[1.0],
        i_squared=[0.5],
        strongest_null_model=["mismatched"],
    )
    assert list(table) == [
        "gap to a fresh network, late",
        "Fisher effective rank, early",
        "final loss, gap to a fresh network",
        "I²",
        "strongest null model",
    ]


def test_hyperparameters_are_words():
    table = rewritten("tuning", method=["l2"], hyperparameters=['{"strength": 0.01, "a_b": 2}'])
    assert table.iloc[0].tolist() == ["L2", "strength 0.01, a b 2"]


def test_names_in_texts_are_replaced_and_other_words_stay():
    texts = ["a_b: ρ = 1.", "given weight_norm", "c_d: task 1.5"]
    table = rewritten("statements", statement=texts, rank=[1, 2, np.nan])
    named = [f"{TITLES['a_b']}: ρ = 1.", "given weight norm", "c_d: task 1.5"]
    assert table["statement"].tolist() == named
    assert table["rank on the first page"].tolist() == ["1", "2", "none"]


def test_columns_without_values_are_left_out():
    table = rewritten(
        setting=["a_b"], power=[np.nan], versus=[""], x=[1], y=[np.nan], y_low=np.nan, y_high=np.nan
    )
    assert list(table) == ["setting", "x"]


@pytest.mark.parametrize(
    "columns",
    [{"estimate": []}, {"measure": ["weight_norm"], "estimate": [np.nan], "note": ["too few"]}],
    ids=["no rows", "no estimates"],
)
def test_table_without_values_is_left_out(columns):
    assert for_readers("t", pd.DataFrame(columns), {}) is None


def test_truth_values_are_words_and_whole_numbers_stay_numbers():
    table = rewritten(counterexample=[True, False], seeds=[5, 4], tasks=[3.0, 10.0])
    assert table["counterexample"].tolist() == ["yes", "no"]
    assert table["seeds"].tolist() == [5, 4]
    assert table["tasks"].tolist() == [3, 10]
    assert pd.api.types.is_integer_dtype(table["tasks"])


def default_study(name):
    if name != "explanations":
        return read_table(PATHS[name])
    names = ("arms", "interventions", "counterexamples", "early_warning")
    return explanations({name: read_table(PATHS[name]) for name in names})


@pytest.mark.parametrize("name", [*PATHS, "explanations"])
def test_tables_of_the_default_study_become_words_and_rounded_numbers(name):
    table = default_study(name)
    titles = {setting: f"Title {setting[-4:]}" for setting in set(table.get("setting", []))}
    shown = for_readers(name, table, titles)
    if name in WITHOUT_VALUES:
        assert shown is None
        return
    assert len(shown) == len(table)
    assert not shown.columns.str.contains("_").any()
    assert shown.columns.is_unique
    assert not shown.isna().any(axis=None)
    cells = shown.astype(str)
    assert not cells.isin(["nan", "NaN", "None"]).any(axis=None)
    assert not cells.apply(lambda column: column.str.contains("digits_labels")).any(axis=None)
    assert (cells != "").any().all(), "no column is empty"
    numbers = shown.select_dtypes("float")
    pd.testing.assert_frame_equal(numbers, numbers.map(lambda value: float(format_number(value))))


def test_default_study_has_an_interval_in_one_cell():
    shown = for_readers("outcomes", default_study("outcomes"), {})
    source = default_study("outcomes").iloc[0]
    expected = f"{source['mean']:.4g} [{source['low']:.4g}, {source['high']:.4g}]"
    assert shown["mean [95 % interval]"].iloc[0] == expected
