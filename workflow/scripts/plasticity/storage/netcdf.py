"""Result files in netCDF: their names, dims, units and types, and how they are read and written.

Each stage describes its variables in a table, which is in the module that computes them. So a new
measure does not change the code of training. `dataset` builds every dataset from such a table, so
a name or dim that no table describes cannot enter a file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError
from plasticity.provenance import code_digest

COMPRESS_ABOVE = 2**20  # bytes; zlib makes smaller arrays larger

COORDINATES = {
    "arm": "method with one choice of its hyperparameters",
    "seed": "seed of the run's draws",
    "task": "index of the task, from 0",
    "evaluation_point": (
        "at the start of the task: previous (data of the previous task), next (data of the next "
        "task), fresh (data of the next task, network initialised from scratch)"
    ),
    "block": (
        "layer to which the parameters or units belong; last_two: the last two layers; all: the "
        "whole network"
    ),
    "treatment": "what was changed in a copy of the checkpoint, with its strength",
    "treated_arm": "arm whose checkpoints were copied and treated",
    "treated_task": "index of the task that the treated copies learned",
    "step": "number of steps of the task taken so far",
    "rank": "index of the eigenvalue, from the largest",
    "grid": (
        "eigenvalue over the largest magnitude, equally spaced in an asinh scale: linear near 0, "
        "logarithmic beyond 0.01"
    ),
}

RUN = ("arm", "seed", "task")


class Variable(NamedTuple):
    """Description of a variable in a result file.

    Attributes:
        dims: in their fixed order.
        meaning: the long name.
        dtype: of the stored numbers.
        flags: words that the numbers encode, if they are codes.
    """

    dims: tuple[str, ...]
    meaning: str
    dtype: str = "float32"
    flags: Mapping[str, int] | None = None

    @property
    def attributes(self) -> dict[str, object]:
        """Attributes by the CF conventions."""
        attributes: dict[str, object] = {"long_name": self.meaning, "units": "1"}
        if self.flags:
            attributes["flag_values"] = np.array(list(self.flags.values()), self.dtype)
            attributes["flag_meanings"] = " ".join(self.flags)
        return attributes


def dataset(
    table: Mapping[str, Variable],
    variables: Mapping[str, np.ndarray],
    coordinates: Mapping[str, object],
    title: str,
    stamp: Mapping[str, str],
) -> xr.Dataset:
    """Create a dataset that follows the contract.

    Args:
        table: description of each variable, from the stage that computes it.
        variables: arrays by name, in the dims of the table.
        coordinates: values along each dim that has a coordinate.
        title: of the file, in a few words.
        stamp: from `code_digest.stamp`.

    Raises:
        KeyError: the table lacks a name. This is a bug in the code, not a mistake of the user.
    """
    described_variables = {}
    for name, values in variables.items():
        description = table[name]
        array = np.asarray(values, description.dtype)
        described_variables[name] = xr.Variable(description.dims, array, description.attributes)
    described_coordinates = {
        name: (name, values, {"long_name": COORDINATES[name], "units": "1"})
        for name, values in coordinates.items()
    }
    return xr.Dataset(described_variables, described_coordinates, {"title": title, **stamp})


def write(data: xr.Dataset, path: Path) -> None:
    """Write a netCDF file atomically.

    Raises:
        StudyError: the disk is full, or the folder is not writable.
    """
    encoding: dict[str, dict[str, object]] = {
        str(name): {"_FillValue": None} for name in data.coords
    }
    encoding |= {str(name): _encoding(values) for name, values in data.data_vars.items()}
    with atomic_write(path) as part, explain_write_errors(path):
        data.to_netcdf(part, engine="netcdf4", encoding=encoding)


def _encoding(values: xr.DataArray) -> dict[str, object]:
    """Choose the compression and the fill value of a variable."""
    encoding: dict[str, object] = {}
    if values.nbytes > COMPRESS_ABOVE:
        encoding |= {"zlib": True, "complevel": 4, "shuffle": True}
    if values.dtype.kind != "f":
        encoding["_FillValue"] = None
    return encoding


def read(path: Path, without: Sequence[str] = ()) -> xr.Dataset:
    """Read a netCDF file of the study into memory.

    Args:
        path: of the file.
        without: dims whose variables are not read, such as ``rank`` of eigenvalues.

    Raises:
        StudyError: the file is missing, truncated, not netCDF, or follows another contract version.
    """
    with open_dataset(path) as data:
        try:
            return data.drop_dims(without, errors="ignore").load()
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(path, error) from error


def open_dataset(path: Path) -> xr.Dataset:
    """Open a netCDF file of the study; values are read when they are used.

    Raises:
        StudyError: the file is missing, truncated, not netCDF, or follows another contract version.
    """
    try:
        data = xr.open_dataset(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error
    check_contract_version(path, data.attrs)
    return data


def check_contract_version(path: Path, attributes: Mapping[str, object]) -> None:
    """Raise if a job wrote the file under another version of the contract.

    Args:
        path: of the file, for the message.
        attributes: the global attributes of the file.

    Raises:
        StudyError: naming both versions.
    """
    if "source" not in attributes:
        return
    version = attributes.get("contract", "1")
    if version != code_digest.CONTRACT:
        raise StudyError(
            f"{path} follows version {version} of the file contract, but this code reads version "
            f"{code_digest.CONTRACT}. Move outdated results away with `make audit ARGS=--adopt`, "
            "then start snakemake again to recompute them"
        )


def _unreadable(path: Path, error: Exception) -> StudyError:
    """Create the exception for a file that cannot be read."""
    return StudyError(
        f"{path} cannot be read ({error}): delete it, then start snakemake again to recompute it"
    )
