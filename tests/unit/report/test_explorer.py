"""The explorer shows what the datasets hold, also while a study is running."""

import io
import math
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bokeh.models import Scatter
from test_figures import (
    ROOT,
    STYLE,
    TWO_SETTINGS,
    setting,
    without,
    without_copies,
    without_curvature,
    without_interventions,
)

from plasticity.config import layers
from plasticity.config.study import read
from plasticity.errors import StudyError
from plasticity.report import explorer_data, explorer_plots, panels
from plasticity.report.explorer_data import Choice, SettingData
from plasticity.report.explorer_files import StudyFiles
from plasticity.statistics import meta_analysis, summaries
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the plotting libraries

explorer = pytest.importorskip("plasticity.report.explorer")

CHOICE = Choice(("none", "fresh"), "final_error", "fisher_trace", "next", "all")
T_4, T_2 = 3.182446305284263, 12.706204736432095  # 97.5 % quantiles for 4 and 2 seeds


@pytest.fixture(scope="module")
def data():
    return TWO_SETTINGS["digits_labels_relu"]


@pytest.fixture(scope="module")
def relu(data):
    return SettingData(data)


def by_hand(gaps):
    """Make a dataset of the arms none and fresh, with these gaps of none by seed and task."""
    gaps = np.array(gaps)
    data = setting(arms=["none", "fresh"], seeds=gaps.shape[0], tasks=gaps.shape[1])
    error = data["final_error"].copy(data=np.stack([gaps + 0.25, np.full(gaps.shape, 0.25)]))
    gap = data["final_error_gap"].copy(data=np.stack([gaps, gaps * 0]))
    return data.assign(final_error=error, final_error_gap=gap)


def write(folder, datasets):
    """Write the datasets of a study, and return its folder."""
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    for name, data in datasets.items():
        stored = data.copy()
        for values in stored.values():
            if "flag_values" in values.attrs:
                values.attrs["flag_values"] = list(values.attrs["flag_values"])
        stored.to_netcdf(folder / "datasets" / f"{name}.nc", engine="netcdf4")
    return folder


def page_of(folder, study=None):
    return explorer.Page("digits", StudyFiles(folder, study), STYLE)


def sentences(page):
    """Return the texts in the place of plots."""
    return " ".join(pane.object for pane in page._plot_box.select(explorer.pn.pane.HTML))


# Numbers


def test_loss_of_plasticity_is_the_growth_of_the_gap_since_the_first_task():
    # 16 tasks: late are tasks 14 and 15
    gaps = np.zeros((2, 16))
    gaps[:, 1:14] = 9.0
    gaps[0, [0, 14, 15]] = 0.2, 0.5, 0.9  # 0.7 − 0.2 = 0.5
    gaps[1, [0, 14, 15]] = 0.1, 0.3, 0.5  # 0.4 − 0.1 = 0.3
    loss = explorer_data.loss_of_plasticity(by_hand(gaps))
    assert loss.value == pytest.approx(0.4)
    reach = T_2 * np.std([0.5, 0.3], ddof=1) / math.sqrt(2)
    assert loss.low == pytest.approx(0.4 - reach)
    assert loss.high == pytest.approx(0.4 + reach)


def test_loss_of_plasticity_is_that_of_the_table_of_counterexamples(data):
    arrays = SettingArrays.from_dataset("relu", data)
    table = meta_analysis.find_counterexamples([arrays], Draws(99), lost=0.05, moved=0.2)
    row = table[table["arm"] == "none"].iloc[0]
    loss = explorer_data.loss_of_plasticity(data)
    assert [loss.value, loss.low, loss.high] == pytest.approx(
        [row["loss"], row["loss_low"], row["loss_high"]]
    )


def test_loss_of_plasticity_is_unknown_without_the_gap_or_the_arm_none(data):
    assert np.isnan(explorer_data.loss_of_plasticity(data.drop_vars("final_error_gap")).value)
    others = data.sel(arm=[arm for arm in data.arm.values if arm != "none"])
    assert np.isnan(explorer_data.loss_of_plasticity(others).value)


def test_table_joins_measure_and_outcome_of_every_arm_seed_and_task(data, relu):
    choice = Choice(("none", "fresh"), "final_error_gap", "fisher_trace", "previous", "output")
    table = relu.table(choice)
    assert len(table) == 2 * data.sizes["seed"] * data.sizes["task"]
    row = table.query("arm == 'none' and seed == 2 and task == 3").iloc[0]
    run = {"arm": "none", "seed": 2, "task": 3}
    measure = data["fisher_trace"].sel(run | {"evaluation_point": "previous", "block": "output"})
    assert row["measure"] == measure.item()
    assert row["outcome"] == data["final_error_gap"].sel(run).item()


def test_update_norm_is_that_of_the_previous_task(data, relu):
    choice = replace(CHOICE, measure="update_norm", evaluation_point="previous")
    table = relu.table(choice).query("arm == 'none' and seed == 1").set_index("task")["measure"]
    assert np.isnan(table[0])
    assert table[3] == data["update_norm"].sel(arm="none", seed=1, task=2).item()


def test_curve_is_the_mean_over_seeds_with_its_interval():
    values = xr.DataArray(
        [[[1.0, 2.0], [2.0, 2.0], [3.0, 4.0], [6.0, 4.0]]],
        dims=("arm", "seed", "task"),
        coords={"arm": ["none"], "seed": range(4), "task": [0, 5]},
    )
    table = explorer_data.curves(values)
    assert table["mean"].tolist() == [3.0, 3.0]
    # sums of squares are 4 + 1 + 0 + 9 and 1 + 1 + 1 + 1
    reach = T_4 * np.sqrt(np.array([14, 4]) / 3) / 2
    np.testing.assert_allclose(table["low"], 3 - reach)
    np.testing.assert_allclose(table["high"], 3 + reach)


def test_curve_equals_that_of_figures(data, relu):
    table = explorer_data.curves(relu.measure(CHOICE)).query("arm == 'none'")
    figure, axis = plt.subplots()
    series = panels.series(data, "fisher_trace", "none")
    panels.curve(axis, series, STYLE, "none", color="black")
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), table["mean"])
    (band,) = axis.collections[0].get_paths()
    heights = band.vertices[:, 1]
    np.testing.assert_allclose(
        [heights.min(), heights.max()], [table["low"].min(), table["high"].max()]
    )
    plt.close(figure)


def test_diverged_run_is_left_out_of_the_curve_and_remarked(data):
    diverged = without(
        data, lambda data: (data.seed == 3) & (data.task >= 2) & (data.arm == "none")
    )
    values = SettingData(diverged).outcome(CHOICE)
    table = explorer_data.curves(values).query("arm == 'none'")
    kept = data["final_error"].sel(arm="none", seed=[0, 1, 2])
    np.testing.assert_array_equal(table["mean"], kept.transpose("task", "seed").values.mean(axis=1))
    assert table["seeds"].tolist() == [3] * data.sizes["task"]
    assert explorer_data.remarks(values, ["none", "fresh"]) == [
        "none: 3 of 4 seeds, the others diverged or have gaps"
    ]


def test_arm_whose_runs_all_diverged_has_a_remark_and_no_curve(data):
    values = SettingData(without(data, lambda data: data.arm == "none")).outcome(CHOICE)
    assert set(explorer_data.curves(values)["arm"]) == {"fresh"}
    assert explorer_data.remarks(values, ["none", "fresh"]) == [
        "none: not measured, or every run diverged"
    ]


def test_spectra_are_those_of_every_run_and_count_from_one(data, relu):
    table = relu.spectra(CHOICE, 4)
    selected = data["fisher_eigenvalue"].sel(task=4, evaluation_point="next", block="all")
    run = table.query("arm == 'none' and seed == 2")
    assert run["index"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(run["eigenvalue"], selected.sel(arm="none", seed=2))
    means = explorer_data.mean_spectra(table).query("arm == 'none'")
    np.testing.assert_allclose(means["mean"], selected.sel(arm="none").mean("seed"))
    reach = T_4 * selected.sel(arm="none").std("seed", ddof=1) / 2
    np.testing.assert_allclose(means["high"] - means["mean"], reach)


def test_spectrum_of_a_measure_without_operator_is_that_of_the_fisher(relu):
    choice = replace(CHOICE, measure="weight_norm", evaluation_point="")
    assert relu.spectrum_operator("weight_norm") == "fisher"
    assert relu.spectrum_place(choice) == ("next", "all")
    pd.testing.assert_frame_equal(relu.spectra(choice, 4), relu.spectra(CHOICE, 4))


def test_tasks_of_the_spectrum_are_those_that_were_measured(data):
    is_even = data.task % 2 == 0
    every_second = data.map(
        lambda values: (
            values.where(is_even) if "rank" not in values.dims and "task" in values.dims else values
        )
    )
    assert SettingData(every_second).spectrum_tasks(CHOICE) == list(range(0, 12, 2))
    assert SettingData(without_curvature(data)).spectrum_tasks(CHOICE) == []


def test_treated_copies_are_joined_with_their_outcome_and_family(data):
    diverged = without_copies(data, lambda data: data.seed == 3)
    choice = Choice(("none",), "final_error_gap", "fisher_trace", "next", "output")
    table = SettingData(diverged).copies(choice)
    assert len(table) == data.sizes["seed"] * data.sizes["treated_task"] * data.sizes["treatment"]
    wanted = {"seed": 2, "task": 11, "treatment": "low_rank(strength=0.9)"}
    (row,) = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)].to_dict("records")
    copy = data.sel(seed=2, treated_arm="none", treated_task=11, treatment="low_rank(strength=0.9)")
    assert row["family"] == "harmful"
    assert row["measure"] == copy["treated_fisher_trace"].sel(block="output").item()
    assert row["outcome"] == copy["treated_final_error"].item()
    assert table[table["seed"] == 3]["outcome"].isna().all()


def test_arm_without_treated_copies_has_none(data, relu):
    assert relu.copies(replace(CHOICE, arms=("fresh",))).empty
    assert SettingData(without_interventions(data)).copies(CHOICE).empty


def test_measures_of_treated_copies_and_margins_are_no_choice_of_their_own(relu):
    assert "fisher_trace" in relu.variants
    assert not [name for name in relu.variants if name.startswith("treated")]
    assert not [name for name in relu.variants if name.endswith(("_margin", "_limit"))]


def test_means_of_stages_are_those_of_the_table_of_outcomes(data, relu):
    means = relu.stage_means(relu.outcome(CHOICE))
    table = summaries.outcomes({"relu": data}).query("outcome == 'final_error'")
    for row in means.to_dict("records"):
        same = table[(table["arm"] == row["arm"]) & (table["stage"] == row["stage"])].iloc[0]
        assert [row["mean"], row["low"], row["high"]] == same[["mean", "low", "high"]].tolist()


# Plots


def test_curves_and_scatter_share_their_points(relu):
    plots = linked(relu)
    sources = {
        renderer.data_source.id
        for plot in (plots.outcome_plot, plots.measure_plot, plots.scatter_plot)
        for renderer in plot.renderers
        if isinstance(renderer.glyph, Scatter) and renderer.glyph.size != 11
    }
    assert sources == {plots.points.id}


def linked(setting_data, choice=CHOICE, on_selection=lambda selection: None):
    looks = explorer_plots.looks_of(setting_data.arms, STYLE)
    plots = explorer_plots.LinkedPlots(setting_data, choice, looks, STYLE, on_selection)
    plots.show_task(4)
    return plots


def test_bands_do_not_widen_a_plot(relu):
    plot = linked(relu).outcome_plot
    assert {type(renderer.glyph).__name__ for renderer in plot.y_range.renderers} == {
        "Line",
        "Scatter",
    }


def test_selected_point_highlights_its_run_in_curves_and_spectrum(data, relu):
    plots = linked(relu)
    position = plots.table.query("arm == 'none' and seed == 2 and task == 3").index[0]
    plots.points.selected.indices = [int(position)]
    (line,) = plots.lines.selected.indices
    assert (plots.lines.data["arm"][line], plots.lines.data["seed"][line]) == ("none", 2)
    run = data["final_error"].sel(arm="none", seed=2)
    assert plots._run_lines.data["outcome"] == [run.values.tolist()]


def test_selected_spectrum_selects_all_tasks_of_its_run(data, relu):
    selections = []
    plots = linked(relu, on_selection=selections.append)
    line = plots.lines.data["seed"].index(1)
    plots.lines.selected.indices = [line]
    wanted = [("none", 1, task) for task in data.task.values]
    assert plots.selection == wanted
    assert selections == [wanted]


def test_selected_tasks_of_all_runs_highlight_no_run(relu):
    plots = linked(relu)
    plots.points.selected.indices = plots.table.query("task == 2").index.tolist()
    assert plots.lines.selected.indices == []
    assert {task for _, _, task in plots.selection} == {2}


def test_arms_of_one_method_have_different_colours():
    arms = ["none", "l2(strength=0.001)", "l2(strength=0.01)", "l2(strength=0.1)", "fresh"]
    looks = explorer_plots.looks_of(arms, STYLE)
    assert len({look.colour for look in looks.values()}) == len(arms)
    assert looks["l2(strength=0.001)"].colour == STYLE.of_arm("l2")["color"]
    assert looks["l2(strength=0.01)"].title == "L2 0.01"


def test_treated_copies_have_the_colours_of_their_families(relu):
    choice = replace(CHOICE, arms=("none",))
    plot = explorer_plots.draw_copies(relu.copies(choice), choice, STYLE)
    colours = {renderer.name: renderer.glyph.fill_color for renderer in plot.renderers}
    assert colours == STYLE.families


# The page


def test_page_opens_on_the_setting_with_the_largest_loss(tmp_path):
    falling, rising = np.zeros((4, 8)), np.zeros((4, 8))
    falling[:, -1], rising[:, -1] = -0.5, 0.25
    datasets = {"a": by_hand(falling), "b": by_hand(rising), "c": by_hand(np.zeros((4, 8)))}
    page = page_of(write(tmp_path, datasets))
    assert page.widgets["setting"].value == "b"
    assert "0.250" in page.texts["head"].object


def test_names_in_widgets_are_readable(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": data}))
    assert page.widgets["arms"].options["L2 0.01"] == "l2(strength=0.01)"
    assert page.widgets["arms"].options["no intervention"] == "none"
    assert page.widgets["measure"].groups["Fisher"]["Fisher effective rank"]
    assert page.widgets["evaluation_point"].options["next task's data"] == "next"
    assert page.plots.scatter_plot.xaxis.axis_label == "Fisher effective rank"


def test_choices_carry_over_to_a_setting_that_offers_them(tmp_path, data):
    other = setting(arms=["none", "redo(threshold=0.1)", "fresh"], evaluation_points=("previous",))
    page = page_of(write(tmp_path, {"one": data, "two": other}))
    widgets = page.widgets
    widgets["setting"].value = "one"
    widgets["measure"].value = "dead_fraction"
    widgets["arms"].value = ["none", "l2(strength=0.01)"]
    widgets["setting"].value = "two"
    assert widgets["measure"].value == "dead_fraction"
    assert widgets["arms"].value == ["none"]
    assert widgets["evaluation_point"].value == "previous"
    assert list(widgets["arms"].options.values()) == ["none", "redo(threshold=0.1)", "fresh"]
    widgets["arms"].value = []
    assert "Choose an arm." in sentences(page)


def test_slider_has_the_measured_tasks_and_moves_the_spectrum(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": data}))
    slider = page.widgets["task"]
    assert slider.options == data.task.values.tolist()
    assert slider.value == slider.options[-1]
    slider.value = 2
    selected = data["fisher_eigenvalue"].sel(
        arm=["none", "fresh"], task=2, evaluation_point="next", block="all"
    )
    np.testing.assert_array_equal(page.plots.spectra["eigenvalue"], selected.values.ravel())


def test_selected_task_moves_the_slider(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": data}))
    position = page.plots.table.query("arm == 'none' and seed == 2 and task == 3").index[0]
    page.plots.points.selected.indices = [int(position)]
    assert page.widgets["task"].value == 3
    assert "no intervention, seed 2" in page.texts["selection"].object
    page.widgets["outcome"].value = "online_error"
    assert page.plots.selection == [("none", 2, 3)]


def test_downloads_hold_the_shown_numbers(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": data}))
    page.widgets["measure"].value = "fisher_trace"
    tables = {name: pd.read_csv(io.StringIO(page.csv(name))) for name in explorer.DOWNLOADS}
    runs = tables["runs"].query("arm == 'none' and seed == 1").set_index("task")
    stored = data.sel(arm="none", seed=1)
    measure = stored["fisher_trace"].sel(evaluation_point="next", block="all")
    np.testing.assert_array_equal(runs["final_error"].astype(np.float32), stored["final_error"])
    np.testing.assert_array_equal(runs["fisher_trace"].astype(np.float32), measure)
    assert set(tables["runs"]["setting"]) == {"relu"}
    assert set(tables["curves"]["quantity"]) == {"final_error", "fisher_trace"}
    assert set(tables["spectrum"]["task"]) == {page.widgets["task"].value}
    spectra = page.plots.spectra["eigenvalue"]
    np.testing.assert_allclose(tables["spectrum"]["eigenvalue"], spectra)
    copies = int((tables["copies"]["arm"] == "none").sum())
    assert copies == (data["treated_copy_status"] == 0).sum()


def test_page_of_one_seed_says_that_it_has_no_intervals(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": data.isel(seed=[0])}))
    titles = [title.text for title in page.plots.outcome_plot.above if hasattr(title, "text")]
    assert "one seed, so no intervals" in titles
    assert "interval 0" not in page.texts["head"].object


def test_page_of_a_study_without_measures_shows_the_outcome(tmp_path, data):
    outcomes = [name for name in data if set(data[name].dims) == {"arm", "seed", "task"}]
    bare = without_interventions(data)[outcomes]
    page = page_of(write(tmp_path / "with", {"relu": bare}))
    assert page.widgets["measure"].value == "update_norm"  # training records it
    assert "The study has no eigenvalues" in sentences(page)
    page = page_of(write(tmp_path / "without", {"relu": bare.drop_vars("update_norm")}))
    assert "The study has no measures" in sentences(page)
    assert "The study has no eigenvalues" in sentences(page)
    assert page.plots.measure_plot is None


def test_page_of_diverged_runs_says_so(tmp_path, data):
    page = page_of(write(tmp_path, {"relu": without(data, lambda data: data.arm == "none")}))
    titles = [title.text for title in page.plots.outcome_plot.above if hasattr(title, "text")]
    assert "no intervention: not measured, or every run diverged" in titles
    assert "The loss of plasticity is not known" in page.texts["head"].object


# Files


def test_settings_without_a_dataset_are_listed_as_not_finished(tmp_path, data):
    study = read(layers.read_config([ROOT / "config.yaml"]))
    page = page_of(write(tmp_path, {"digits_labels_relu": data}), study)
    assert set(page._files.unfinished) == set(study.settings) - {"digits_labels_relu"}
    assert "digits, shuffled labels, tanh" in page.texts["files"].object
    assert page.widgets["setting"].options["digits, shuffled labels, tanh (not finished)"]
    assert "digits_labels_tanh" in page.widgets["setting"].disabled_options


def test_runs_name_the_settings_of_a_folder(tmp_path, data):
    (tmp_path / "runs/other_setting").mkdir(parents=True)
    files = StudyFiles(write(tmp_path, {"relu": data}))
    assert files.unfinished == ["other_setting"]


def test_page_without_a_finished_setting_takes_in_the_first_one(tmp_path, data):
    (tmp_path / "runs/relu").mkdir(parents=True)
    page = page_of(tmp_path)
    assert "No setting is finished yet" in sentences(page)
    write(tmp_path, {"relu": data})
    page.look_for_new_results()
    assert page.widgets["setting"].value == "relu"
    assert page.plots.spectrum_plot


def test_new_and_replaced_datasets_are_taken_in(tmp_path, data):
    folder = write(tmp_path, {"one": data})
    page = page_of(folder)
    plots = page.plots
    page.look_for_new_results()
    assert page.plots is plots
    write(folder, {"two": data})
    page.reload.param.trigger("value")
    assert list(page.widgets["setting"].options.values()) == ["one", "two"]
    assert page.plots is plots  # the shown setting did not change

    changed = data.assign(final_error=data["final_error"] + 1)
    write(tmp_path / "new", {"one": changed})
    (tmp_path / "new/datasets/one.nc").replace(folder / "datasets/one.nc")
    page.look_for_new_results()
    assert page.widgets["setting"].value == "one"
    np.testing.assert_allclose(page.plots.table["outcome"], plots.table["outcome"] + 1)


def test_removed_dataset_stays_until_the_new_one_is_there(tmp_path, data):
    folder = write(tmp_path, {"one": data})
    page = page_of(folder)
    shutil.copy(folder / "datasets/one.nc", tmp_path / "copy.nc")
    (folder / "datasets/one.nc").unlink()
    page.look_for_new_results()
    assert "Being recomputed" in page.texts["files"].object
    page.widgets["task"].value = 1
    assert set(page.plots.spectra["arm"]) == {"none", "fresh"}
    (tmp_path / "copy.nc").replace(folder / "datasets/one.nc")
    page.look_for_new_results()
    assert "Being recomputed" not in page.texts["files"].object


@pytest.mark.parametrize("content", [b"", b"no netCDF", None])
def test_unreadable_file_gives_a_sentence(tmp_path, data, content):
    folder = write(tmp_path, {"one": data})
    if content is None:
        data[["final_error"]].isel(seed=0, drop=True).to_netcdf(folder / "datasets/bad.nc")
    else:
        (folder / "datasets/bad.nc").write_bytes(content)
    page = page_of(folder)
    assert "datasets/bad.nc" in page.texts["files"].object
    assert "then start snakemake again" in page.texts["files"].object
    assert page.widgets["setting"].value == "one"


def test_file_that_becomes_unreadable_keeps_its_former_numbers(tmp_path, data):
    folder = write(tmp_path, {"one": data})
    page = page_of(folder)
    table = page.plots.table
    (folder / "datasets/one.nc").write_bytes(b"truncated")
    page.look_for_new_results()
    assert "cannot be read" in page.texts["files"].object
    pd.testing.assert_frame_equal(page.plots.table, table)
    page.widgets["task"].value = 1  # the spectrum is no longer in the file
    assert "can no longer be read" in page.texts["files"].object


def test_setting_that_could_not_be_read_is_read_again(tmp_path, data, monkeypatch):
    page = page_of(write(tmp_path, {"one": data, "two": data}))
    load = StudyFiles.load

    def fail(self, name):
        raise StudyError("it is being replaced")

    monkeypatch.setattr(StudyFiles, "load", fail)
    page.widgets["setting"].value = "two" if page.widgets["setting"].value == "one" else "one"
    assert "it is being replaced" in sentences(page)
    monkeypatch.setattr(StudyFiles, "load", load)
    page.look_for_new_results()
    assert "it is being replaced" not in sentences(page)
    assert page.plots is not None


def test_estimated_spectrum_is_not_shown(tmp_path, data):
    page = page_of(write(tmp_path, {"one": data}))
    assert "an estimate" not in sentences(page)
    page.widgets["measure"].value = "hessian_trace"  # its margin is above 0
    assert "an estimate, which has no single eigenvalues" in sentences(page)
    assert not page.widgets["task"].visible
    assert pd.read_csv(io.StringIO(page.csv("spectrum"))).empty


def test_error_of_the_netcdf_library_is_a_study_error(data, monkeypatch):
    def fail(self):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.Dataset, "load", fail)
    with pytest.raises(StudyError, match="can no longer be read"):
        SettingData(data)


def test_means_have_as_many_decimals_as_their_interval():
    rows = [
        {"arm": "none", "stage": "early", "mean": 0.12345, "low": 0.1, "high": 0.14678},
        {"arm": "none", "stage": "late", "mean": -0.0001, "low": -1.2, "high": 1.2},
        {"arm": "none", "stage": "change", "mean": 0.5, "low": np.nan, "high": np.nan},
    ]
    table = explorer.numbers_table("final error", pd.DataFrame(rows), tasks=40)
    for text in ("0.123 ± 0.023", "0.0 ± 1.2", "0.500", "early: tasks 1–5", "late: tasks 35–39"):
        assert f">{text}<" in table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.15, "0.150"), (-0.01234, "−0.0123"), (12.34, "12.3"), (176.2, "176"), (12345.0, "12300")],
)
def test_numbers_have_three_digits(value, text):
    assert explorer.number(value) == text
