"""All curvature operators, exact and estimated, from nothing to tables and figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from projects import copied

pytestmark = pytest.mark.slow

STUDY = Path(__file__).with_name("operators.yaml")
SETTING = "digits_labels_tanh"
OPERATORS = ["fisher", "ggn", "hessian", "ntk"]
LAYERS = ["hidden_1", "norm_1", "hidden_2", "norm_2", "output"]


@pytest.fixture(scope="module")
def project(study):
    """The study, built to its figures: to look at, not to change."""

    def change(config):
        config.clear()
        config |= yaml.safe_load(STUDY.read_text(encoding="utf-8"))

    return study("operators", change, "figures")


@pytest.fixture(scope="module")
def dataset(project):
    """Of its setting."""
    with xr.open_dataset(project.root / "results/operators/datasets" / f"{SETTING}.nc") as data:
        return data.load()


def test_every_operator_is_in_the_dataset_where_it_was_asked_for(dataset):
    assert dataset.arm.values.tolist() == ["none", "layer_norm", "fresh"]
    assert dataset.block.values.tolist() == [*LAYERS, "last_two", "all"]
    assert dataset.evaluation_point.values.tolist() == ["previous", "next", "fresh"]
    assert dataset.curvature_status.dtype == np.int8
    assert (
        dataset.curvature_status.sel(task=0) == xr.DataArray([2, 0, 0], dims="evaluation_point")
    ).all()
    assert (dataset.curvature_status.sel(task=1) == 0).all()
    layer_norm = xr.DataArray(
        dataset.arm.values == "layer_norm", dims="arm", coords={"arm": dataset.arm}
    )
    has = layer_norm | ~dataset.block.isin(["norm_1", "norm_2"])
    for operator in OPERATORS:
        asked = (dataset.curvature_status == 0) & has
        if operator == "ntk":
            asked = (
                asked
                & (dataset.task == 0)
                & (dataset.evaluation_point != "previous")
                & (dataset.block != "last_two")
            )
        for name in ("trace", "effective_rank_at_0_9", "gradient_overlap"):
            there = dataset[f"{operator}_{name}"].notnull()
            assert (there == asked).all(), (operator, name)


def test_what_is_estimated_has_errors_and_what_is_exact_has_none(dataset):
    assert "fisher_trace_standard_error" not in dataset
    errors = {
        operator: dataset[f"{operator}_trace_standard_error"].sel(task=0, evaluation_point="next")
        for operator in OPERATORS[1:]
    }
    assert (errors["ggn"].fillna(0) == 0).all()
    assert (errors["hessian"].sel(block=["hidden_1", "all", "last_two"]) > 0).all()
    assert (errors["hessian"].sel(block=["hidden_2", "output"]) == 0).all(), (
        "they have 72 and 90 parameters"
    )
    assert (errors["ntk"].sel(block=["hidden_1", "all"]) > 0).all()
    assert (errors["ntk"].sel(block=["hidden_2", "output"]) == 0).all()
    for operator in OPERATORS[1:]:
        assert (
            dataset[f"{operator}_density"].sel(task=0, evaluation_point="next", block="all") >= 0
        ).all()


def test_the_rank_of_the_ggn_is_bounded_by_its_samples_and_outputs_and_spectra_are_padded_to_the_longest(
    dataset,
):
    lengths = {
        operator: dataset[f"{operator}_eigenvalue"].notnull().sum("rank") for operator in OPERATORS
    }
    assert lengths["fisher"].max() == 32
    assert lengths["ggn"].max() == 8 * 9
    assert (
        lengths["hessian"].sel(block="output").max()
        == lengths["hessian"].max()
        == dataset.sizes["rank"]
        == 90
    )


def test_fresh_is_what_the_fresh_networks_have(dataset):
    fresh = dataset.sel(arm="fresh")
    for operator in OPERATORS:
        for name in (f"{operator}_trace", f"{operator}_effective_rank", f"{operator}_eigenvalue"):
            of_evaluation_points = [
                dataset[name].sel(arm="none", evaluation_point="fresh", drop=True),
                fresh[name].sel(evaluation_point="next", drop=True),
            ]
            np.testing.assert_array_equal(*of_evaluation_points)
    assert not fresh["fisher_trace"].equals(dataset["fisher_trace"].sel(arm="layer_norm")), (
        "that has a network of its own"
    )


def test_tables_and_figures_are_made_of_it(project):
    results = project.root / "results/operators"
    measures = pd.read_csv(results / "tables/measures.csv", keep_default_na=False)
    for operator in OPERATORS:
        rows = measures[measures["measure"] == f"{operator}_trace"]
        assert set(rows["arm"]) == {"none", "layer_norm", "fresh"}
        early = rows.query("block == 'all' and evaluation_point == 'next' and stage == 'early'")
        assert len(early) == 3
        assert (early["mean"] != "").all()
    assert (
        len(list((results / "figures").glob("*.svg")))
        == len(list((results / "figures").glob("*.png")))
        > 3
    )
    assert (
        "test_top_eigenvalue_is_the_first_of_the_spectrum" in (results / "checks.txt").read_text()
    )


def test_another_operator_is_measured_without_training(project, tmp_path):
    with copied(project, tmp_path / "copy") as copy:
        copy.config(lambda config: config["curvature"]["operators"].pop("ntk"))
        assert {job.split()[0] for job in copy.plan("datasets")} == {
            "measure_ensemble",
            "gather",
            "datasets",
        }


def test_what_a_study_of_all_operators_costs_is_said(project, tmp_path):
    with copied(project, tmp_path / "copy") as copy:
        done = copy.snakemake("cost")
    assert done.returncode == 0, done.stdout
    assert "layer_norm" in done.stdout
