"""The page to explore shows what the datasets hold."""

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
from test_figures import STYLE, TWO_SETTINGS, setting, without_copies, without_interventions

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the plotting libraries

explorer = pytest.importorskip("plasticity.report.explorer")


def test_table_joins_measure_and_outcome_of_every_arm_seed_and_task():
    data = TWO_SETTINGS["digits_labels_relu"]
    arms = ["none", "fresh"]
    table = explorer.table(data, "fisher_trace", "final_error_gap", arms, "previous", "output")
    assert len(table) == 2 * data.sizes["seed"] * data.sizes["task"]
    row = table.query("arm == 'none' and seed == 2 and task == 3").iloc[0]
    run = {"arm": "none", "seed": 2, "task": 3}
    measure = data["fisher_trace"].sel(run | {"evaluation_point": "previous", "block": "output"})
    assert row["fisher_trace"] == measure.item()
    assert row["final_error_gap"] == data["final_error_gap"].sel(run).item()


def test_table_of_a_measure_without_evaluation_points_has_no_such_column():
    data = TWO_SETTINGS["digits_labels_relu"]
    table = explorer.table(data, "weight_norm", "final_error", ["none"], "previous", "all")
    assert "evaluation_point" not in table


def test_spectra_are_means_over_seeds_and_count_from_one():
    data = TWO_SETTINGS["digits_labels_relu"]
    table = explorer.spectra(data, "fisher", ["none"], 4, "next", "all")
    selected = data["fisher_eigenvalue"].sel(
        arm="none", task=4, evaluation_point="next", block="all"
    )
    assert table["index"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(table["eigenvalue"], selected.mean("seed"))


def test_spectra_of_an_unmeasured_operator_are_empty():
    data = TWO_SETTINGS["digits_labels_relu"]
    assert explorer.spectra(data, "ntk", ["none"], 4, "next", "all").empty


def test_treated_copies_are_joined_with_their_outcome_and_family():
    data = without_copies(TWO_SETTINGS["digits_labels_relu"], lambda data: data.seed == 3)
    table = explorer.copies(data, "fisher_trace", "final_error_gap", ["none"], "output")
    assert len(table) == data.sizes["seed"] * data.sizes["treated_task"] * data.sizes["treatment"]
    wanted = {"seed": 2, "task": 11, "treatment": "low_rank(strength=0.9)"}
    (row,) = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)].to_dict("records")
    copy = data.sel(seed=2, treated_arm="none", treated_task=11, treatment="low_rank(strength=0.9)")
    assert row["family"] == "harmful"
    assert row["fisher_trace"] == copy["treated_fisher_trace"].sel(block="output").item()
    assert row["final_error"] == copy["treated_final_error"].item()
    assert table[table["seed"] == 3]["final_error"].isna().all()


def test_arm_without_treated_copies_has_none():
    data = TWO_SETTINGS["digits_labels_relu"]
    assert explorer.copies(data, "fisher_trace", "final_error", ["fresh"], "all").empty


def test_measures_of_treated_copies_are_no_choice_of_their_own():
    names = explorer.measures_of(TWO_SETTINGS["digits_labels_relu"])
    assert "fisher_trace" in names
    assert not [name for name in names if name.startswith("treated")]


def test_page_shows_treated_copies_in_the_colours_of_their_families():
    data = TWO_SETTINGS["digits_labels_relu"]
    page = explorer.view(
        data, STYLE, ["none"], "fisher_trace", "final_error", "next", "all", task=4
    )
    plot = hv.render(page[2][0].object)
    assert "treated copies" in plot.title.text
    colours = {renderer.name: renderer.glyph.fill_color for renderer in plot.renderers}
    assert colours == STYLE.families


def test_page_of_a_study_without_interventions_shows_no_copies():
    data = without_interventions(TWO_SETTINGS["digits_labels_relu"])
    page = explorer.view(
        data, STYLE, ["none"], "fisher_trace", "final_error", "next", "all", task=4
    )
    assert len(page) == 2


def test_choices_carry_over_to_a_setting_that_offers_them():
    other = setting(arms=["none", "redo(threshold=0.1)", "fresh"], evaluation_points=("previous",))
    datasets = {"one": TWO_SETTINGS["digits_labels_relu"], "two": other}
    page = explorer.page("digits", datasets, STYLE)

    def widgets():
        return {widget.name: widget for widget in page.select(pn.widgets.base.WidgetBase)}

    widgets()["measure"].value = "dead_fraction"
    widgets()["arms"].value = ["none", "l2(strength=0.01)"]
    page[1].value = "two"
    assert widgets()["measure"].value == "dead_fraction"
    assert widgets()["arms"].value == ["none"]
    assert widgets()["evaluation_point"].value == "previous"
    assert widgets()["arms"].options == ["none", "redo(threshold=0.1)", "fresh"]
    widgets()["arms"].value = []
    assert "Choose an arm." in [pane.object for pane in page.select(pn.pane.Markdown)]
