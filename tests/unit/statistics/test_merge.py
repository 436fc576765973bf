"""Merge ensembles into a setting: every number keeps its run, and gaps are NaN."""

import json

import numpy as np
import pytest
import xarray as xr

from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.statistics.merge import add_interventions, merge_ensembles
from plasticity.storage import netcdf

TASKS = 4
ARM_NUMBERS = {"none": 1, "a": 2, "b": 3, "fresh": 4, "c(x=1)": 5, "a+c": 6, "fresh+c": 7}


def run_numbers(arms, seeds, tasks):
    """Number each run and task uniquely, shape ``(arm, seed, task)``."""
    arm_numbers = np.array([ARM_NUMBERS[arm] for arm in arms], float)
    return (
        100 * arm_numbers[:, None, None]
        + 10 * np.array(list(seeds), float)[:, None]
        + np.array(list(tasks), float)
    )


def ensemble(
    arms,
    seeds,
    measured=range(TASKS),
    blocks=("hidden_1", "output", "all"),
    rank=3,
    hyperparameters=None,
):
    """Build outcomes of all tasks and measures of some, whose values identify run and task."""
    run = ("arm", "seed", "task")
    coordinates = {"arm": arms, "seed": list(seeds)}
    outcomes = {}
    for index, name in enumerate(("final_error", "online_error", "final_loss")):
        outcomes[name] = (run, run_numbers(arms, seeds, range(TASKS)) + index)
    weight_norm = np.stack([-run_numbers(arms, seeds, measured)] * len(blocks), axis=-1)
    eigenvalues = np.stack([weight_norm] * rank, axis=-1) - np.arange(rank) / 8
    status = np.zeros((len(arms), len(seeds), len(measured), 2), np.int8)
    flags = {"flag_values": np.arange(4, dtype=np.int8)}
    measures = {
        "weight_norm": ((*run, "block"), weight_norm),
        "fisher_eigenvalue": ((*run, "block", "rank"), eigenvalues),
        "curvature_status": ((*run, "evaluation_point"), status, flags),
    }
    measure_coordinates = {
        "task": list(measured),
        "block": list(blocks),
        "evaluation_point": ["previous", "next"],
        "rank": range(rank),
    }
    settings = {"settings": json.dumps({"arms": hyperparameters or [{} for _ in arms]})}
    return (
        xr.Dataset(outcomes, coordinates | {"task": range(TASKS)}, settings),
        xr.Dataset(measures, coordinates | measure_coordinates),
    )


def merge(*ensembles):
    outcomes, measures = zip(*ensembles, strict=True)
    return merge_ensembles(outcomes, measures)


def test_every_number_keeps_its_arm_seed_and_task():
    ensembles = []
    for arms in (["none"], ["a", "b"], ["fresh"]):
        ensembles += [ensemble(arms, seeds) for seeds in ((0, 1), (2,))]
    data = merge(*ensembles)
    assert list(data.arm.values) == ["none", "a", "b", "fresh"]
    assert list(data.seed.values) == [0, 1, 2]
    for arm in data.arm.values:
        for seed in data.seed.values:
            for task in data.task.values:
                expected = 100 * ARM_NUMBERS[arm] + 10 * seed + task
                point = data.sel(arm=arm, seed=seed, task=task)
                assert point["final_error"] == expected
                assert (point["weight_norm"] == -expected).all()


@pytest.mark.parametrize("outcome", ["final_error", "online_error", "final_loss", "test_error"])
def test_outcomes_of_the_baseline_are_repeated_as_variables(outcome):
    none, none_measures = ensemble(["none"], [0, 1])
    fresh, fresh_measures = ensemble(["fresh"], [0, 1])
    if outcome == "test_error":
        none = none.assign(test_error=none["final_error"] + 7)
        fresh = fresh.assign(test_error=fresh["final_error"] + 7)
    data = merge((none, none_measures), (fresh, fresh_measures))
    assert data[f"fresh_{outcome}"].dims == ("arm", "seed", "task")
    for arm in ("none", "fresh"):
        repeated = data[f"fresh_{outcome}"].sel(arm=arm)
        np.testing.assert_array_equal(repeated, fresh[outcome].sel(arm="fresh"))
    assert "fresh" in data[f"fresh_{outcome}"].attrs["long_name"]
    assert ("fresh_test_error" in data) == (outcome == "test_error")


def test_gap_to_the_baseline_is_stored_with_a_description(tmp_path):
    data = merge(ensemble(["a", "b"], [0, 1]), ensemble(["fresh"], [0, 1]))
    netcdf.write(data, tmp_path / "a.nc")
    stored = netcdf.read(tmp_path / "a.nc")
    for outcome in ("final_error", "online_error", "final_loss"):
        gap = stored[f"{outcome}_gap"]
        assert gap.dims == ("arm", "seed", "task")
        assert (gap.sel(arm="a") == 100 * (ARM_NUMBERS["a"] - ARM_NUMBERS["fresh"])).all()
        assert (gap.sel(arm="fresh") == 0).all()
        assert "minus that of its baseline" in gap.attrs["long_name"]
        assert gap.attrs["units"] == "1"
    assert "test_error_gap" not in stored


def test_numeric_hyperparameters_are_coordinates_of_the_arms(tmp_path):
    data = merge(
        ensemble(["none"], [0]),
        ensemble(
            ["a", "b"],
            [0],
            hyperparameters=[{"strength": 0.001, "kernels": "all"}, {"strength": 1, "rank": 5}],
        ),
        ensemble(["a+c"], [0], hyperparameters=[{"a.strength": 0.5}]),
        ensemble(["fresh"], [0]),
    )
    netcdf.write(data, tmp_path / "a.nc")
    stored = netcdf.read(tmp_path / "a.nc")
    missing = np.nan
    expected = {
        "arm_strength": [missing, 0.001, 1, missing, missing],
        "arm_rank": [missing, missing, 5, missing, missing],
        "arm_a_strength": [missing, missing, missing, 0.5, missing],
    }
    assert {name for name in stored.coords if name.startswith("arm_")} == set(expected)
    for name, values in expected.items():
        assert stored[name].dims == ("arm",)
        assert stored[name].dtype == np.float64
        np.testing.assert_array_equal(stored[name], values)
        assert stored[name].attrs["long_name"]
        assert stored[name].attrs["units"]
    assert "arm_kernels" not in stored.coords
    strongest = stored.final_error.where(stored.arm_strength == 1, drop=True)
    assert strongest.arm.values.tolist() == ["b"]


def test_arms_with_another_architecture_have_a_baseline_of_their_own():
    arms = ["none", "a", "c(x=1)", "a+c", "fresh", "fresh+c"]
    data = merge(*(ensemble([arm], [0, 1]) for arm in arms))
    baselines = {"c(x=1)": "fresh+c", "a+c": "fresh+c", "fresh+c": "fresh+c"}
    for arm in arms:
        expected = data["final_error"].sel(arm=baselines.get(arm, "fresh"), drop=True)
        assert data["fresh_final_error"].sel(arm=arm, drop=True).equals(expected), arm


def test_measures_of_unmeasured_tasks_are_nan():
    data = merge(
        ensemble(["none"], [0], measured=[0, 2]), ensemble(["fresh"], [0], measured=[0, 2])
    )
    assert np.isnan(data["weight_norm"].sel(task=[1, 3])).all()
    assert np.isfinite(data["weight_norm"].sel(task=[0, 2])).all()
    assert np.isfinite(data["final_error"]).all()


def test_status_of_an_unmeasured_task_is_not_asked_for_and_an_integer(tmp_path):
    data = merge(
        ensemble(["none"], [0], measured=[0, 2], blocks=("all",)),
        ensemble(["fresh"], [0], measured=[0, 2], blocks=("norm_1", "all")),
    )
    netcdf.write(data, tmp_path / "a.nc")
    status = netcdf.read(tmp_path / "a.nc")["curvature_status"]
    assert status.dtype == np.int8
    assert status.dims == ("arm", "seed", "task", "evaluation_point")
    assert (status.sel(task=[1, 3]) == measure.STATUS["not_asked_for"]).all()
    assert (status.sel(task=[0, 2]) == measure.STATUS["measured"]).all()
    assert status.attrs["flag_values"].tolist() == [0, 1, 2, 3]


def test_shorter_spectra_are_padded_with_nan(tmp_path):
    ensembles = [
        ensemble(["none"], [0], rank=3),
        ensemble(["none"], [1], rank=2),
        ensemble(["a"], [0, 1], rank=5),
        ensemble(["fresh"], [0, 1], rank=3),
    ]
    data = merge(*ensembles)
    assert data["rank"].values.tolist() == list(range(5))
    for _, measures in ensembles:
        length = measures.sizes["rank"]
        spectra = data["fisher_eigenvalue"].sel(arm=measures.arm, seed=measures.seed)
        np.testing.assert_array_equal(
            spectra.isel(rank=slice(length)), measures["fisher_eigenvalue"]
        )
        assert spectra.isel(rank=slice(length, None)).isnull().all()
    netcdf.write(data, tmp_path / "a.nc")
    assert netcdf.read(tmp_path / "a.nc")["rank"].dtype.kind == "i"


def test_ensembles_without_spectra_are_merged():
    ensembles = [ensemble([arm], [0]) for arm in ("none", "fresh")]
    data = merge(*((outcomes, measures.drop_dims("rank")) for outcomes, measures in ensembles))
    assert "rank" not in data.dims
    assert data["weight_norm"].notnull().all()


def test_missing_seed_is_an_error():
    with pytest.raises(StudyError, match="same seeds and tasks"):
        merge(ensemble(["none"], [0, 1]), ensemble(["fresh"], [0]))


def test_additional_layers_of_one_arm_keep_their_place_and_are_nan_in_others():
    data = merge(
        ensemble(["none"], (0,)),
        ensemble(["a"], (0,), blocks=("hidden_1", "norm_1", "output", "all")),
        ensemble(["fresh"], (0,)),
    )
    assert list(data.block.values) == ["hidden_1", "norm_1", "output", "all"]
    has_layer = data.weight_norm.sel(block="norm_1").notnull().all(["seed", "task"])
    assert has_layer.values.tolist() == [False, True, False]
    assert data.weight_norm.drop_sel(block="norm_1").notnull().all()


# Interventions


def copies(arms, seeds, tasks=(1, 3), blocks=("hidden_1", "output", "all")):
    """Build the treated copies of an ensemble, whose values identify run, task and treatment."""
    run = ("arm", "seed", "task", "treatment")
    numbers = run_numbers(arms, seeds, tasks)[..., None] + np.array([0, 0.25, 0.5])
    variables = {
        "final_error": (run, numbers, {"long_name": "error"}),
        "weight_norm": ((*run, "block"), np.stack([-numbers] * len(blocks), axis=-1)),
        "treatment_family": ("treatment", np.array([0, 1, 1], np.int8)),
        "treatment_strength": ("treatment", [np.nan, 0.5, 1]),
    }
    coordinates = {
        "arm": arms,
        "seed": list(seeds),
        "task": list(tasks),
        "treatment": ["none", "a(strength=0.5)", "a(strength=1)"],
        "block": list(blocks),
    }
    return xr.Dataset(variables, coordinates)


@pytest.fixture
def setting():
    """Merge the runs of two arms with three seeds."""
    return merge(
        *(ensemble(arms, seeds) for arms in (["none", "b"], ["fresh"]) for seeds in ((0, 1), (2,)))
    )


def test_every_copy_keeps_its_arm_seed_task_and_treatment(setting):
    treated = [copies(["none"], (0, 1)), copies(["none"], (2,))]
    data = add_interventions(setting, treated)
    dims = ("treated_arm", "seed", "treated_task", "treatment")
    assert data["treated_final_error"].dims == dims
    assert data["treated_weight_norm"].dims == (*dims, "block")
    for seed in (0, 1, 2):
        for task in (1, 3):
            for index, treatment in enumerate(data.treatment.values):
                place = {"seed": seed, "treated_task": task, "treatment": treatment}
                value = data["treated_final_error"].sel(place).item()
                assert value == 100 + 10 * seed + task + index / 4
                weights = data["treated_weight_norm"].sel(place)
                assert (weights == -value).all()
    assert data["treatment_family"].values.tolist() == [0, 1, 1]
    assert data["treatment_family"].dtype == np.int8
    assert data["treated_final_error"].attrs["long_name"] == "error"


def test_runs_stay_as_they_are_when_copies_are_added(setting):
    data = add_interventions(setting, [copies(["none"], (0, 1, 2))])
    xr.testing.assert_identical(
        data[list(setting.data_vars)].drop_vars(
            ["treated_arm", "treated_task", "treatment"], errors="ignore"
        ),
        setting,
    )
    assert add_interventions(setting, []) is setting


def test_blocks_that_a_treated_network_lacks_are_missing(setting):
    data = add_interventions(setting, [copies(["none"], (0, 1, 2), blocks=("hidden_1", "all"))])
    assert list(data.block.values) == list(setting.block.values)
    assert np.isnan(data["treated_weight_norm"].sel(block="output")).all()
    assert np.isfinite(data["treated_weight_norm"].sel(block="all")).all()


@pytest.mark.parametrize(
    "treated",
    [
        [copies(["none"], (0, 1))],
        [copies(["none"], (0, 1, 2)), copies(["b"], (0, 1))],
        [copies(["none"], (0, 1)), copies(["none"], (2,), tasks=(1, 2))],
    ],
    ids=["a seed is missing", "a seed of an arm is missing", "other tasks"],
)
def test_copies_that_do_not_fit_are_refused_in_one_sentence(setting, treated):
    with pytest.raises(StudyError, match="interventions of a setting do not have the same seeds"):
        add_interventions(setting, treated)
