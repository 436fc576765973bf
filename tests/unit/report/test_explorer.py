"""The page to explore shows what the datasets hold."""

import numpy as np
import panel as pn
import pytest
from test_figures import STYLE, TWO_SETTINGS, setting

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
