"""Ensembles joined into a setting: nothing lost, nothing doubled, nothing made up."""

import numpy as np
import pytest
import xarray as xr

from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.statistics.merge import gather
from plasticity.storage import netcdf

TASKS = 4


def ensemble(arms, seeds, measured=range(TASKS), blocks=("hidden_1", "output", "all"), rank=3):
    """Outcomes whose numbers name their run and task, and measures at some of the tasks, with spectra of some length."""

    def numbers(tasks):
        return np.array(
            [
                [[100 * hash_of(arm) + 10 * seed + task for task in tasks] for seed in seeds]
                for arm in arms
            ],
            float,
        )

    coordinates = {"arm": arms, "seed": list(seeds)}
    run = ("arm", "seed", "task")
    made = {
        name: (run, numbers(range(TASKS)) + place)
        for place, name in enumerate(("final_error", "online_error", "final_loss"))
    }
    outcomes = xr.Dataset(made, coordinates | {"task": range(TASKS)})
    of_blocks = np.stack([-numbers(measured)] * len(blocks), axis=-1)
    coordinates |= {
        "task": list(measured),
        "block": list(blocks),
        "evaluation_point": ["previous", "next"],
        "rank": range(rank),
    }
    spectra = np.stack([of_blocks] * rank, axis=-1) - np.arange(rank) / 8
    status = np.zeros((len(arms), len(seeds), len(measured), 2), np.int8)
    found = {
        "weight_norm": (("arm", "seed", "task", "block"), of_blocks),
        "fisher_eigenvalue": (("arm", "seed", "task", "block", "rank"), spectra),
        "curvature_status": (
            ("arm", "seed", "task", "evaluation_point"),
            status,
            {"flag_values": np.arange(4, dtype=np.int8)},
        ),
    }
    return outcomes, xr.Dataset(found, coordinates)


def hash_of(arm):
    return {"none": 1, "a": 2, "b": 3, "fresh": 4}[arm]


def joined(*ensembles):
    return gather(*zip(*ensembles, strict=True))


def test_every_number_is_where_its_run_says():
    blocks = [
        ensemble(arms, seeds)
        for arms in (["none"], ["a", "b"], ["fresh"])
        for seeds in ((0, 1), (2,))
    ]
    data = joined(*blocks)
    assert list(data.arm.values) == ["none", "a", "b", "fresh"]
    assert list(data.seed.values) == [0, 1, 2]
    for arm in data.arm.values:
        for seed in data.seed.values:
            for task in data.task.values:
                expected = 100 * hash_of(arm) + 10 * seed + task
                there = data.sel(arm=arm, seed=seed, task=task)
                assert there["final_error"] == expected
                assert (there["weight_norm"] == -expected).all()


@pytest.mark.parametrize("outcome", ["final_error", "online_error", "final_loss", "test_error"])
def test_the_fresh_networks_outcomes_are_beside_everyones(outcome):
    (none, of_none), (fresh, of_fresh) = ensemble(["none"], [0, 1]), ensemble(["fresh"], [0, 1])
    if outcome == "test_error":
        none, fresh = (data.assign(test_error=data["final_error"] + 7) for data in (none, fresh))
    data = gather([none, fresh], [of_none, of_fresh])
    assert data[f"fresh_{outcome}"].dims == ("seed", "task")
    np.testing.assert_array_equal(data[f"fresh_{outcome}"], fresh[outcome].sel(arm="fresh"))
    assert "fresh" in data[f"fresh_{outcome}"].attrs["long_name"]
    assert ("fresh_test_error" in data) == (outcome == "test_error")


def test_tasks_without_a_measure_are_missing():
    data = joined(
        ensemble(["none"], [0], measured=[0, 2]), ensemble(["fresh"], [0], measured=[0, 2])
    )
    assert np.isnan(data["weight_norm"].sel(task=[1, 3])).all()
    assert np.isfinite(data["weight_norm"].sel(task=[0, 2])).all()
    assert np.isfinite(data["final_error"]).all()


def test_the_status_of_a_task_without_a_measure_says_so_and_stays_an_integer(tmp_path):
    some = [
        ensemble([arm], [0], measured=[0, 2], blocks=blocks)
        for arm, blocks in (("none", ("all",)), ("fresh", ("norm_1", "all")))
    ]
    netcdf.write(joined(*some), tmp_path / "a.nc")
    status = netcdf.read(tmp_path / "a.nc")["curvature_status"]
    assert status.dtype == np.int8
    assert status.dims == ("arm", "seed", "task", "evaluation_point")
    assert (status.sel(task=[1, 3]) == measure.STATUS["not_asked_for"]).all()
    assert (status.sel(task=[0, 2]) == measure.STATUS["measured"]).all()
    assert status.attrs["flag_values"].tolist() == [0, 1, 2, 3]


def test_spectra_of_other_lengths_are_padded_and_all_numbers_stay(tmp_path):
    some = [
        ensemble(["none"], [0]),
        ensemble(["none"], [1], rank=2),
        ensemble(["a"], [0, 1], rank=5),
        ensemble(["fresh"], [0, 1]),
    ]
    data = joined(*some)
    assert data["rank"].values.tolist() == list(range(5))
    for (_, measured), length in zip(some, (3, 2, 5, 3), strict=True):
        here = data["fisher_eigenvalue"].sel(arm=measured.arm, seed=measured.seed)
        np.testing.assert_array_equal(here.isel(rank=slice(length)), measured["fisher_eigenvalue"])
        assert here.isel(rank=slice(length, None)).isnull().all()
    netcdf.write(data, tmp_path / "a.nc")
    assert netcdf.read(tmp_path / "a.nc")["rank"].dtype.kind == "i"


def test_a_ensemble_without_spectra_is_gathered_too():
    some = [ensemble([arm], [0]) for arm in ("none", "fresh")]
    data = joined(*((outcomes, measured.drop_dims("rank")) for outcomes, measured in some))
    assert "rank" not in data.dims
    assert data["weight_norm"].notnull().all()


def test_a_missing_seed_is_an_error_and_not_a_gap():
    with pytest.raises(StudyError, match="same runs"):
        joined(ensemble(["none"], [0, 1]), ensemble(["fresh"], [0]))


def test_layers_that_only_some_methods_networks_have_are_in_their_place_and_missing_for_the_others():
    data = joined(
        ensemble(["none"], (0,)),
        ensemble(["a"], (0,), blocks=("hidden_1", "norm_1", "output", "all")),
        ensemble(["fresh"], (0,)),
    )
    assert list(data.block.values) == ["hidden_1", "norm_1", "output", "all"]
    assert data.weight_norm.sel(block="norm_1").notnull().all(["seed", "task"]).values.tolist() == [
        False,
        True,
        False,
    ]
    assert data.weight_norm.drop_sel(block="norm_1").notnull().all()
