"""Result files are described, complete or absent, and the same bytes for the same data."""

import errno
import os

import netCDF4
import numpy as np
import pytest
import xarray as xr

from plasticity.config.models import Curvature
from plasticity.curvature import measure
from plasticity.data import dataset
from plasticity.errors import StudyError
from plasticity.interventions import variables
from plasticity.provenance import record
from plasticity.storage import netcdf
from plasticity.training import outcomes

CURVATURE = Curvature.of(
    {
        "operators": ["fisher", "hessian"],
        "samples": 9,
        "evaluation_points": ["previous", "next"],
        "every": 1,
        "levels": [0.99, 0.5],
    }
)
TABLE = {**dataset.TABLE, **outcomes.TABLE, **measure.table(CURVATURE)}
STAMP = {"source": "test", "contract": "2", "settings": "{}", "code": "{}", "versions": "{}"}
COORDINATES = {
    "arm": ["none", "l2(strength=1)"],
    "seed": [3, 4],
    "task": [0, 1, 2],
    "evaluation_point": ["previous", "next"],
    "block": ["hidden_1", "all"],
    "step": [2, 5],
}
SIZES = {name: len(values) for name, values in COORDINATES.items()} | {
    "rank": 5,
    "grid": 3,
    "sample": 6,
    "channel": 2,
    "row": 3,
    "column": 4,
    "class": 7,
}


def random_dataset(names, scale=1.0):
    """Draw a dataset with the named variables, some missing values, and a status."""
    draw = np.random.default_rng(0)
    variables = {}
    for name in names:
        dims, _, dtype, _ = TABLE[name]
        values = draw.uniform(0, 2, [SIZES[dim] for dim in dims]) * scale
        if dtype == "str":
            values = np.array(["cat", "bär", "", "T-shirt/top", "a b", "nought", "x" * 50])
        if dtype == "float32":
            values.flat[0] = np.nan
        variables[name] = values.astype(dtype)
    dims = {dim for name in names for dim in TABLE[name][0]}
    coordinates = {name: values for name, values in COORDINATES.items() if name in dims}
    coordinates |= {dim: range(SIZES[dim]) for dim in ("rank", "grid") if dim in dims}
    return netcdf.dataset(TABLE, variables, coordinates, "random", STAMP)


@pytest.fixture
def all_variables():
    """A dataset with every variable of the contract."""
    return random_dataset(TABLE)


def test_dataset_is_read_as_it_was_written(tmp_path, all_variables):
    netcdf.write(all_variables, tmp_path / "next" / "a.nc")
    read = netcdf.read(tmp_path / "next" / "a.nc")
    xr.testing.assert_identical(read, all_variables)
    assert {name: values.dtype for name, values in read.data_vars.items()} == {
        name: values.dtype for name, values in all_variables.data_vars.items()
    }


def test_variables_with_some_dims_can_be_left_out(tmp_path, all_variables):
    netcdf.write(all_variables, tmp_path / "a.nc")
    read = netcdf.read(tmp_path / "a.nc", without=["rank", "not_a_dim"])
    assert "rank" not in read.sizes
    xr.testing.assert_identical(read, all_variables.drop_dims("rank"))


def test_only_large_arrays_are_compressed_and_without_loss(tmp_path):
    data = random_dataset(["status", "final_error"]).isel(
        arm=[0] * 40, seed=[0] * 80, task=[0, 1, 2] * 40
    )
    netcdf.write(data, tmp_path / "a.nc")
    xr.testing.assert_identical(netcdf.read(tmp_path / "a.nc"), data)
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file["final_error"].filters()["zlib"]
        assert not file["status"].filters()["zlib"]


def test_dims_types_and_descriptions_follow_the_contract(tmp_path, all_variables):
    netcdf.write(all_variables, tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        for name, (dims, meaning, dtype, _) in TABLE.items():
            assert file[name].dimensions == dims
            assert file[name].dtype == np.dtype(dtype)
            assert file[name].long_name == meaning
        for values in file.variables.values():
            assert values.long_name
            assert values.units == "1"
            assert "standard_name" not in values.ncattrs()
        assert set(STAMP) | {"title"} <= set(file.ncattrs())


def test_only_floating_point_variables_have_a_fill_value(tmp_path, all_variables):
    netcdf.write(all_variables, tmp_path / "a.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        for name, values in file.variables.items():
            is_float_variable = name not in COORDINATES and np.dtype(values.dtype).kind == "f"
            assert ("_FillValue" in values.ncattrs()) == is_float_variable, name


def test_floating_point_coordinate_has_no_fill_value(tmp_path):
    netcdf.write(
        random_dataset(["final_error"]).assign_coords(task=[0.5, 1.5, 2.5]), tmp_path / "a.nc"
    )
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert "_FillValue" not in file["task"].ncattrs()


def test_every_dim_except_those_of_images_and_classes_has_a_described_coordinate():
    dims = {dim for variable in TABLE.values() for dim in variable.dims}
    dims |= {*variables.COPY, "treated_arm", "treated_task"}
    assert dims - {"sample", "channel", "row", "column", "class"} == set(netcdf.COORDINATES)


@pytest.mark.parametrize(
    ("name", "meanings"), {"status": outcomes.STATUS, "curvature_status": measure.STATUS}.items()
)
def test_status_describes_its_values(tmp_path, all_variables, name, meanings):
    netcdf.write(all_variables, tmp_path / "a.nc")
    status = netcdf.read(tmp_path / "a.nc")[name]
    assert status.dtype == status.attrs["flag_values"].dtype == np.int8
    words, values = status.attrs["flag_meanings"].split(), status.attrs["flag_values"].tolist()
    assert dict(zip(words, values, strict=True)) == meanings
    assert status.attrs["long_name"] == TABLE[name].meaning


def test_only_status_variables_have_flags(all_variables):
    assert {name for name, values in all_variables.items() if "flag_values" in values.attrs} == {
        "status",
        "curvature_status",
    }


def test_name_outside_the_contract_is_refused():
    with pytest.raises(KeyError, match="accuracy"):
        netcdf.dataset(TABLE, {"accuracy": np.zeros(3)}, {}, "t", STAMP)
    with pytest.raises(KeyError, match="epoch"):
        netcdf.dataset(TABLE, {}, {"epoch": [1]}, "t", STAMP)


def test_same_data_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        netcdf.write(random_dataset(TABLE), tmp_path / folder / "x.nc")
    assert (tmp_path / "a" / "x.nc").read_bytes() == (tmp_path / "b" / "x.nc").read_bytes()


@pytest.mark.parametrize(
    "failure",
    [ValueError("mid-way"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()],
)
def test_failed_write_leaves_the_former_file_and_no_other(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.nc"
    netcdf.write(random_dataset(["final_error"]), path)
    former = path.read_bytes()

    def fail(self, part, **options):
        part.write_bytes(b"half")
        assert part.parent == path.parent
        raise failure

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    expected = StudyError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        netcdf.write(random_dataset(["final_error"], scale=2), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]
    assert path.read_bytes() == former


def test_write_replaces_the_former_file(tmp_path):
    for scale in (1, 2):
        netcdf.write(random_dataset(["final_error"], scale), tmp_path / "a.nc")
    xr.testing.assert_identical(netcdf.read(tmp_path / "a.nc"), random_dataset(["final_error"], 2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("NetCDF: HDF error")]
)
def test_full_disk_gives_one_sentence_with_the_name_of_the_file(tmp_path, monkeypatch, failure):
    def fail(self, part, **options):
        raise failure

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(
        StudyError,
        match=r"a\.nc could not be written \(.+\): free space or give yourself write permission",
    ):
        netcdf.write(random_dataset(["final_error"]), tmp_path / "a.nc")


@pytest.mark.parametrize("remaining", [0, 100, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused_by_name(tmp_path, remaining):
    path = tmp_path / "a.nc"
    netcdf.write(random_dataset(TABLE), path)
    content = path.read_bytes()
    size = int(remaining * len(content)) if 0 < remaining < 1 else remaining
    path.write_bytes(content[:size])
    with pytest.raises(StudyError, match=r"a\.nc cannot be read \(.+\): delete it"):
        netcdf.read(path)


def test_missing_file_and_file_of_another_format_are_refused_by_name(tmp_path):
    (tmp_path / "text.nc").write_text("not netCDF")
    for name in ("absent.nc", "text.nc"):
        with pytest.raises(StudyError, match=rf"{name} cannot be read"):
            netcdf.read(tmp_path / name)


def test_digest_of_a_file_depends_on_its_content_only(tmp_path):
    for name, content in {"a": b"1", "b": b"2", "c": b"1"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (record.digest(tmp_path / name) for name in "abc")
    assert a == c != b


@pytest.mark.parametrize(
    "stamp",
    [
        {"source": "train"},
        {"source": "train", "contract": "1"},
        {"source": "train", "contract": "3"},
    ],
    ids=str,
)
def test_file_of_another_contract_version_is_refused_with_what_to_do(tmp_path, stamp):
    netcdf.write(xr.Dataset({"a": 1.0}, attrs=stamp), tmp_path / "a.nc")
    version = stamp.get("contract", "1")
    message = rf"version {version} of the file contract, .* version 2\. .*make audit ARGS=--adopt"
    with pytest.raises(StudyError, match=message):
        netcdf.read(tmp_path / "a.nc")
