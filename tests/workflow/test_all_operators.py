"""All curvature operators, exact and estimated, from an empty folder to tables and figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from projects import copy_project

pytestmark = pytest.mark.slow

STUDY = Path(__file__).with_name("operators.yaml")
SETTING = "digits_labels_tanh"
ARMS = ["none", "layer_norm", "fresh", "fresh+layer_norm"]
OPERATORS = ["fisher", "ggn", "hessian", "ntk"]
ESTIMATED_OPERATORS = ["ggn", "hessian", "ntk"]
LAYERS = ["hidden_1", "norm_1", "hidden_2", "norm_2", "output"]
NORM_LAYERS = ["norm_1", "norm_2"]
FISHER_SAMPLES = 32
GGN_SAMPLES = 8
RANK_PER_SAMPLE = 9  # ten classes, whose probabilities add up to 1
OUTPUT_PARAMETERS = 90  # eight inputs and a bias for each of ten classes
EXACT_LAYERS = ["hidden_2", "output"]  # 72 and 90 parameters, less than exact_up_to


@pytest.fixture(scope="module")
def project(build_study):
    """Build the figures of operators.yaml once, to read only."""

    def use_operators_study(config):
        config.clear()
        config |= yaml.safe_load(STUDY.read_text(encoding="utf-8"))

    return build_study("operators", use_operators_study, "figures")


@pytest.fixture
def project_copy(project, tmp_path):
    """Copy the built project, to change it."""
    with copy_project(project, tmp_path / "copy") as built_copy:
        yield built_copy


@pytest.fixture(scope="module")
def dataset(project):
    """Load the dataset of the only setting."""
    with xr.open_dataset(project.root / "results/operators/datasets" / f"{SETTING}.nc") as data:
        return data.load()


def requested_entries(dataset, operator):
    """Return a mask of the entries that the config requests of an operator."""
    is_layer_norm = xr.DataArray(
        ["layer_norm" in arm for arm in dataset.arm.values], dims="arm", coords={"arm": dataset.arm}
    )
    has_block = is_layer_norm | ~dataset.block.isin(NORM_LAYERS)
    requested = (dataset.curvature_status == 0) & has_block
    if operator == "ntk":
        requested = requested & (dataset.task == 0)
        requested = requested & (dataset.evaluation_point != "previous")
        requested = requested & (dataset.block != "last_two")
    return requested


def check_coordinates_and_status(dataset):
    """Check the arms, blocks and evaluation points, and where curvature has no data."""
    assert dataset.arm.values.tolist() == ARMS
    assert dataset.block.values.tolist() == [*LAYERS, "last_two", "all"]
    assert dataset.evaluation_point.values.tolist() == ["previous", "next", "fresh"]
    status = dataset.curvature_status
    assert status.dtype == np.int8
    no_previous_task = xr.DataArray([2, 0, 0], dims="evaluation_point")
    assert (status.sel(task=0) == no_previous_task).all()
    assert (status.sel(task=1) == 0).all()


def test_dataset_has_every_operator_exactly_where_the_config_requests_it(dataset):
    check_coordinates_and_status(dataset)
    for operator in OPERATORS:
        requested = requested_entries(dataset, operator)
        for quantity in ("trace", "negative_fraction", "gradient_overlap"):
            has_number = dataset[f"{operator}_{quantity}"].notnull()
            assert (has_number == requested).all(), (operator, quantity)
        # an estimate may not know a rank
        has_rank = dataset[f"{operator}_effective_rank_at_0_9"].notnull()
        assert (requested | ~has_rank).all(), operator
        assert has_rank.any(), operator


def test_only_estimated_numbers_have_margins_of_error(dataset):
    assert "fisher_trace_margin" not in dataset
    errors = {}
    for operator in ESTIMATED_OPERATORS:
        variable = dataset[f"{operator}_trace_margin"]
        errors[operator] = variable.sel(task=0, evaluation_point="next")
    assert (errors["ggn"].fillna(0) == 0).all()
    assert (errors["hessian"].sel(block=["hidden_1", "all", "last_two"]) > 0).all()
    assert (errors["hessian"].sel(block=EXACT_LAYERS) == 0).all()
    assert (errors["ntk"].sel(block=["hidden_1", "all"]) > 0).all()
    assert (errors["ntk"].sel(block=EXACT_LAYERS) == 0).all()
    for operator in ESTIMATED_OPERATORS:
        density = dataset[f"{operator}_density"]
        assert (density.sel(task=0, evaluation_point="next", block="all") >= 0).all(), operator


def test_spectra_are_as_long_as_the_rank_and_padded_to_the_longest(dataset):
    lengths = {}
    for operator in OPERATORS:
        lengths[operator] = dataset[f"{operator}_eigenvalue"].notnull().sum("rank")
    assert lengths["fisher"].max() == FISHER_SAMPLES
    assert lengths["ggn"].max() == GGN_SAMPLES * RANK_PER_SAMPLE
    assert lengths["hessian"].sel(block="output").max() == OUTPUT_PARAMETERS
    assert lengths["hessian"].max() == OUTPUT_PARAMETERS
    assert dataset.sizes["rank"] == OUTPUT_PARAMETERS


def test_evaluation_point_fresh_has_the_numbers_of_the_arm_fresh(dataset):
    baseline = dataset.sel(arm="fresh")
    for operator in OPERATORS:
        for quantity in ("trace", "effective_rank", "eigenvalue"):
            name = f"{operator}_{quantity}"
            at_fresh_point = dataset[name].sel(arm="none", evaluation_point="fresh", drop=True)
            of_fresh_arm = baseline[name].sel(evaluation_point="next", drop=True)
            np.testing.assert_array_equal(at_fresh_point, of_fresh_arm, err_msg=name)
    layer_norm_trace = dataset["fisher_trace"].sel(arm="layer_norm")
    assert not baseline["fisher_trace"].equals(layer_norm_trace), "layer_norm has other layers"


def check_rows_of_operator(measures, operator):
    """Check that the table of measures has the trace of an operator for every arm."""
    rows = measures[measures["measure"] == f"{operator}_trace"]
    assert set(rows["arm"]) == set(ARMS)
    first = rows.query("block == 'all' and evaluation_point == 'next' and stage == 'first'")
    assert len(first) == len(ARMS)
    assert (first["mean"] != "").all()


def test_tables_and_figures_have_every_operator(project):
    results = project.root / "results/operators"
    measures = pd.read_csv(results / "tables/measures.csv", keep_default_na=False)
    for operator in OPERATORS:
        check_rows_of_operator(measures, operator)
    svg_files = list((results / "figures").glob("*.svg"))
    png_files = list((results / "figures").glob("*.png"))
    assert len(svg_files) == len(png_files)
    assert len(png_files) > 3
    passed_checks = (results / "checks.txt").read_text()
    assert "test_top_eigenvalue_is_the_first_of_the_spectrum" in passed_checks


def test_change_of_operators_trains_nothing(project_copy):
    project_copy.config(lambda config: config["curvature"]["operators"].pop("ntk"))
    rules = {job.split()[0] for job in project_copy.plan("datasets")}
    assert rules == {"measure_ensemble", "gather", "datasets"}


def test_cost_of_a_study_with_all_operators_is_estimated(project_copy):
    process = project_copy.snakemake("cost")
    assert process.returncode == 0, process.stdout
    assert "layer_norm" in process.stdout
