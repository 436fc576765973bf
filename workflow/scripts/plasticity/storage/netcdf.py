"""What a result file holds: names, dims, units, types; and how it is written: whole or not at all.

Each stage has a table of its variables beside the code that computes them (a new measure must not change what training is
made of); every dataset is built from such a table by `dataset`, so a name or a dim that is in none cannot enter a file.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from plasticity.errors import StudyError
from plasticity.provenance import code_digest

COMPRESS_ABOVE = 2**20  # bytes; below it zlib makes files larger, not smaller

COORDINATES = {
    "arm": "method with one choice of its hyper-parameters",
    "seed": "seed of the run's draws",
    "task": "index of the task, from 0",
    "evaluation_point": "at the task's start: old (the ended task's data), new (the coming task's), fresh (the coming task's, a network drawn anew)",
    "block": "layer whose parameters, or units, are meant; last_two: the last two layers; all: the whole network",
    "step": "steps of the task that are taken by then",
    "rank": "index of the eigenvalue, from the largest",
    "grid": "eigenvalue over the largest magnitude: equally spaced in an asinh of it, linear near 0, logarithmic beyond 0.01",
}

RUN = ("arm", "seed", "task")


class Variable(NamedTuple):
    """What the contract says of a variable.

    Attributes:
        dims: in their fixed order.
        meaning: its long name.
        dtype: in which it is stored.
        flags: what its numbers mean, where they stand for words.
    """

    dims: tuple[str, ...]
    meaning: str
    dtype: str = "float32"
    flags: Mapping[str, int] | None = None

    @property
    def attributes(self) -> dict[str, object]:
        """As CF names them."""
        said: dict[str, object] = {"long_name": self.meaning, "units": "1"}
        if self.flags:
            said |= {
                "flag_values": np.array(list(self.flags.values()), self.dtype),
                "flag_meanings": " ".join(self.flags),
            }
        return said


def dataset(
    table: Mapping[str, Variable],
    variables: Mapping[str, np.ndarray],
    coordinates: Mapping[str, object],
    title: str,
    stamp: Mapping[str, str],
) -> xr.Dataset:
    """A dataset of the contract.

    Args:
        table: what the stage that makes the dataset promises of each variable.
        variables: arrays by name, in the dims that the table gives them.
        coordinates: values along each dim that has them.
        title: what the file is, in a few words.
        stamp: as `provenance.stamp` gives it.

    Raises:
        KeyError: a name that the table does not have: a mistake in our code, not a user's.
    """
    described = {
        name: xr.Variable(
            table[name].dims, np.asarray(values, table[name].dtype), table[name].attributes
        )
        for name, values in variables.items()
    }
    along = {
        name: (name, values, {"long_name": COORDINATES[name], "units": "1"})
        for name, values in coordinates.items()
    }
    return xr.Dataset(described, along, {"title": title, **stamp})


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` only if nothing went wrong; what was there before stays until then."""
    part = path.with_name(path.name + ".part")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with explained(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """A failure to write, as a sentence: a full disk is an OSError to Python and a RuntimeError to netCDF.

    Raises:
        StudyError: naming the file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(
            f"{path} could not be written ({reason}): free space or mend its permissions"
        ) from error


def write(data: xr.Dataset, path: Path) -> None:
    """Write netCDF atomically.

    Raises:
        StudyError: no space, no permission.
    """
    encoding: dict[str, dict[str, object]] = {
        str(name): {"_FillValue": None} for name in data.coords
    }
    for name, values in data.data_vars.items():
        large = values.nbytes > COMPRESS_ABOVE
        encoding[str(name)] = {"zlib": True, "complevel": 4, "shuffle": True} if large else {}
        if values.dtype.kind != "f":
            encoding[str(name)]["_FillValue"] = None
    with atomic_write(path) as part, explained(path):
        data.to_netcdf(part, engine="netcdf4", encoding=encoding)


def read(path: Path) -> xr.Dataset:
    """Read a netCDF file of the study into memory.

    Raises:
        StudyError: missing, truncated or not netCDF.
    """
    with open_dataset(path) as data:
        try:
            return data.load()
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(path, error) from error


def open_dataset(path: Path) -> xr.Dataset:
    """Open a netCDF file of the study; values are read when they are used.

    Raises:
        StudyError: missing, truncated, not netCDF, or of another version of the contract.
    """
    try:
        data = xr.open_dataset(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from error
    check_contract_version(path, data.attrs)
    return data


def check_contract_version(path: Path, attributes: Mapping[str, object]) -> None:
    """Refuse a file that a job has made under another version of the contract.

    Raises:
        StudyError: naming both, and what to do.
    """
    if (
        "source" in attributes
        and (found := attributes.get("contract", "1")) != code_digest.CONTRACT
    ):
        raise StudyError(
            f"{path} follows version {found} of the contract of files, and this code reads version {code_digest.CONTRACT}: lay aside what "
            "is not of this code (make audit ARGS=--adopt), and start snakemake again, which makes it anew"
        )


def _unreadable(path: Path, error: Exception) -> StudyError:
    """What to say of a file that cannot be read."""
    return StudyError(
        f"{path} cannot be read ({error}): delete it and start snakemake again, which makes it anew"
    )
