"""What the page to explore shows is what the datasets hold."""

import numpy as np
import panel as pn
import pytest
from test_figures import PLAIN, STYLE, setting

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # those of the libraries that draw it are not ours

exploring = pytest.importorskip("plasticity.report.explorer")


def test_a_measure_and_an_outcome_stand_beside_each_other_for_every_arm_seed_and_task():
    data = PLAIN["digits_labels_relu"]
    table = exploring.table(
        data, "fisher_trace", "final_error_gap", ["none", "fresh"], "previous", "output"
    )
    assert len(table) == 2 * data.sizes["seed"] * data.sizes["task"]
    row = table.query("arm == 'none' and seed == 2 and task == 3").iloc[0]
    assert (
        row["fisher_trace"]
        == data["fisher_trace"]
        .sel(arm="none", seed=2, task=3, evaluation_point="previous", block="output")
        .item()
    )
    assert row["final_error_gap"] == data["final_error_gap"].sel(arm="none", seed=2, task=3).item()
    assert "evaluation_point" not in exploring.table(
        data, "weight_norm", "final_error", ["none"], "previous", "all"
    )


def test_spectra_are_means_over_seeds_from_index_1_and_none_where_none_were_kept():
    data = PLAIN["digits_labels_relu"]
    table = exploring.spectra(data, "fisher", ["none"], 4, "next", "all")
    expected = (
        data["fisher_eigenvalue"]
        .sel(arm="none", task=4, evaluation_point="next", block="all")
        .mean("seed")
    )
    assert table["index"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(table["eigenvalue"], expected)
    assert exploring.spectra(data, "ntk", ["none"], 4, "next", "all").empty


def test_what_is_chosen_stays_chosen_where_the_next_setting_has_it():
    other = setting(arms=["none", "redo(threshold=0.1)", "fresh"], evaluation_points=("previous",))
    page = exploring.page("digits", {"one": PLAIN["digits_labels_relu"], "two": other}, STYLE)

    def choices():
        return {widget.name: widget for widget in page.select(pn.widgets.base.WidgetBase)}

    choices()["measure"].value = "dead_fraction"
    choices()["arms"].value = ["none", "l2(strength=0.01)"]
    page[1].value = "two"
    assert choices()["measure"].value == "dead_fraction"
    assert choices()["arms"].value == ["none"]
    assert choices()["evaluation_point"].value == "previous"
    assert choices()["arms"].options == ["none", "redo(threshold=0.1)", "fresh"]
    choices()["arms"].value = []
    assert "Choose an arm." in [pane.object for pane in page.select(pn.pane.Markdown)]
