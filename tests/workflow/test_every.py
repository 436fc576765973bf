"""Problems, networks and optimizers that no shipped study has, from nothing to the report."""

import json
from pathlib import Path

import pytest
import xarray as xr
import yaml

pytestmark = pytest.mark.slow

STUDY = Path(__file__).with_name("every.yaml")
CONFIG = yaml.safe_load(STUDY.read_text(encoding="utf-8"))


def of_this_file(config):
    """Take the study of this file in place of the tiny one."""
    config.clear()
    config |= CONFIG


@pytest.fixture(scope="module")
def every(study):
    """The study, built."""
    return study("every", of_this_file)


@pytest.mark.parametrize("setting", CONFIG["settings"])
def test_every_setting_is_trained_measured_and_checked(every, setting):
    with xr.open_dataset(every.root / "results/every/datasets" / f"{setting}.nc") as data:
        assert (data.status == 0).all()
        assert ("test_error" in data) == ("test_samples" in CONFIG["settings"][setting]["problem"])
        measured = data.sel(evaluation_point="next", task=[0, 2])
        assert measured.fisher_effective_rank.notnull().all()
        assert (measured.fisher_trace.sel(block="all") > 0).all()
        assert measured.feature_rank.notnull().any("block").all()
        options = json.loads(data.settings)["setting"]["network"]["options"]
        assert options.items() <= CONFIG["settings"][setting]["network"].items()
    assert (every.root / "results/every/report.html").exists()
    assert data.isel(task=1).sizes["arm"] == 2


def test_the_fresh_head_is_drawn_anew_at_a_switch_and_nothing_else_is(every):
    folder = every.root / "results/every/runs/digits_pairs_crelu/none/0-1"
    with xr.open_dataset(folder / "checkpoints.nc") as checkpoints:
        bias = checkpoints["output.bias"].sel(task=2)
        assert (bias == 0).all(), "it begins at zero, as at task 0"
        assert (checkpoints["hidden_1.bias"].sel(task=2) != 0).any()


def test_the_errors_on_test_images_are_in_the_table(every):
    table = (every.root / "results/every/tables/outcomes.csv").read_text()
    rows = [line.split(",") for line in table.splitlines()]
    assert {row[0] for row in rows if row[2] == "test_error"} == {
        "bits_flip_relu_sgd",
        "digits_incremental_vit_adamw",
    }


def test_built_again_in_another_place_it_is_the_same_bytes(every, clone):
    project = clone()
    project.config(of_this_file)
    some = "runs/digits_incremental_vit_adamw/none/0-1"
    project.build(f"results/every/{some}/measures.nc")
    for name in ("outcomes.nc", "checkpoints.nc", "measures.nc"):
        assert (project.root / "results/every" / some / name).read_bytes() == (
            every.root / "results/every" / some / name
        ).read_bytes()
