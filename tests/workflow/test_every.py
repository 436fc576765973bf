"""Problems, networks and optimizers of every.yaml, from an empty folder to the report."""

import json
from pathlib import Path

import pytest
import xarray as xr
import yaml

pytestmark = pytest.mark.slow

STUDY = Path(__file__).with_name("every.yaml")
CONFIG = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
ENSEMBLE = "runs/digits_incremental_vit_adamw/none/0-1"


def use_every_study(config):
    """Replace the config of the tiny study by every.yaml."""
    config.clear()
    config |= CONFIG


@pytest.fixture(scope="module")
def results(build_study):
    """Build the study once, to read only; return the folder of its results."""
    return build_study("every", use_every_study).root / "results/every"


def check_measures(data):
    """Check that a dataset has Fisher curvature and the feature rank at measured tasks."""
    measured = data.sel(evaluation_point="next", task=[0, 2])
    assert measured.fisher_effective_rank.notnull().all()
    assert (measured.fisher_trace.sel(block="all") > 0).all()
    assert measured.feature_rank.notnull().any("block").all()


@pytest.mark.parametrize("setting", CONFIG["settings"])
def test_every_setting_is_trained_measured_and_reported(results, setting):
    section = CONFIG["settings"][setting]
    with xr.open_dataset(results / f"datasets/{setting}.nc") as data:
        assert (data.status == 0).all()
        assert ("test_error" in data) == ("test_samples" in section["problem"])
        check_measures(data)
        options = json.loads(data.settings)["setting"]["network"]["options"]
        assert options.items() <= section["network"].items()
        assert data.sizes["arm"] == 2
    assert (results / "report.html").exists()


def test_fresh_head_alone_is_reinitialised_at_a_task_boundary(results):
    path = results / "runs/digits_pairs_crelu/none/0-1/checkpoints.nc"
    with xr.open_dataset(path) as checkpoints:
        output_bias = checkpoints["output.bias"].sel(task=2)
        hidden_bias = checkpoints["hidden_1.bias"].sel(task=2)
        assert (output_bias == 0).all(), "the biases of the new head are not 0"
        assert (hidden_bias != 0).any()


def test_table_of_outcomes_has_the_test_error_of_settings_with_test_samples(results):
    lines = (results / "tables/outcomes.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    settings = {row[0] for row in rows if row[2] == "test_error"}
    assert settings == {"bits_flip_relu_sgd", "digits_incremental_vit_adamw"}


def test_ensemble_built_in_another_folder_has_the_same_bytes(results, new_project):
    project = new_project()
    project.config(use_every_study)
    project.build(f"results/every/{ENSEMBLE}/measures.nc")
    other_results = project.root / "results/every"
    for name in ("outcomes.nc", "checkpoints.nc", "measures.nc"):
        expected = (results / ENSEMBLE / name).read_bytes()
        assert (other_results / ENSEMBLE / name).read_bytes() == expected, name
