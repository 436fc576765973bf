"""Checkpoints: a run's parameters at the start of tasks, in one netCDF file per ensemble.

netCDF, since every other result is: a format without code, described dims, no further dependency. A chunk is one task, so
a task is read without the others.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import netCDF4
import numpy as np
import torch
from torch import Tensor

from plasticity.errors import StudyError
from plasticity.storage import netcdf


class Rows:
    """Members' parameters at the start of some tasks, while they train: raw float32 in one file, written and read a task at a time.

    Rows are written where they belong, in any order and more than once: what a killed job wrote is written again, or is there.
    """

    def __init__(
        self, path: Path, tasks: Sequence[int], runs: int, shapes: Mapping[str, Sequence[int]]
    ) -> None:
        """A file at `path` for checkpoints of so many runs, at the given tasks.

        Args:
            path: of the file.
            tasks: at whose start there is a checkpoint.
            runs: how many.
            shapes: of each parameter, by name, in the order in which they lie in a row.
        """
        self.path, self.tasks, self.runs, self.shapes = path, list(tasks), runs, shapes
        self.width = sum(math.prod(shape) for shape in shapes.values())

    def write(self, first: int, task: int, parameters: Tensor) -> None:
        """Write the rows of runs from the `first` on, shape ``(run, parameter)``; nothing, if the task is not among the checkpoints.

        Raises:
            StudyError: no space, no permission.
        """
        if task not in self.tasks:
            return
        with (
            netcdf.explained(self.path),
            self.path.open("r+b" if self.path.exists() else "wb") as file,
        ):
            file.seek(4 * self.width * (self.tasks.index(task) * self.runs + first))
            file.write(parameters.to("cpu", torch.float32).contiguous().numpy().data)

    def reach(self, end: int, task: int) -> bool:
        """Whether the file is as long as it must be if it has the rows of runs before the `end` at all checkpoints before a task."""
        due = sum(checkpoint < task for checkpoint in self.tasks)
        length = 4 * self.width * ((due - 1) * self.runs + end) if due else 0
        return length <= (self.path.stat().st_size if self.path.exists() else 0)

    def read(self, task: int) -> np.ndarray:
        """All runs' rows, shape ``(run, parameter)``."""
        count = self.runs * self.width
        rows = np.fromfile(self.path, np.float32, count, offset=4 * count * self.tasks.index(task))
        return rows.reshape(self.runs, self.width)


def write(
    path: Path, rows: Rows, arms: Sequence[str], seeds: Sequence[int], stamp: Mapping[str, str]
) -> None:
    """Write an ensemble's checkpoints, one task at a time; the file appears when all are in.

    Args:
        path: of the file.
        rows: of all runs, arms outermost.
        arms: names.
        seeds: numbers.
        stamp: as `provenance.stamp` gives it.

    Raises:
        StudyError: no space, no permission.
    """
    ends = np.cumsum([math.prod(shape) for shape in rows.shapes.values()])[:-1]
    with (
        netcdf.atomic_write(path) as part,
        netcdf.explained(path),
        netCDF4.Dataset(part, "w") as file,
    ):
        file.setncatts({"title": "parameters at the start of tasks", **stamp})
        for dim, values in {
            "arm": np.array(arms, object),
            "seed": np.array(seeds),
            "task": np.array(rows.tasks),
        }.items():
            file.createDimension(dim, len(values))
            coordinate = file.createVariable(dim, str if dim == "arm" else "i8", (dim,))
            coordinate[:] = values
            coordinate.setncatts({"long_name": netcdf.COORDINATES[dim], "units": "1"})
        for name, shape in rows.shapes.items():
            dims = [f"{name}_{axis}" for axis in range(len(shape))]
            for dim, size in zip(dims, shape, strict=True):
                file.createDimension(dim, size)
            chunk = (len(arms), len(seeds), 1, *shape)
            variable = file.createVariable(
                name, "f4", ("arm", "seed", "task", *dims), chunksizes=chunk, fill_value=False
            )
            variable.setncatts({"long_name": f"parameter {name}", "units": "1"})
        for place, task in enumerate(rows.tasks):
            for (name, shape), values in zip(
                rows.shapes.items(), np.split(rows.read(task), ends, axis=1), strict=True
            ):
                file[name][:, :, place] = values.reshape(len(arms), len(seeds), *shape)


class Checkpoints:
    """An ensemble's checkpoints, read one task at a time.

    Attributes:
        arms, seeds: the runs, arms outermost.
        tasks: at whose start there is a checkpoint.
        shapes: of each parameter, by name, in the order in which they lie in a row.
        settings: what the ensemble was trained with, as JSON.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `writer` made.

        Raises:
            StudyError: missing, truncated, not netCDF, or of another version of the contract.
        """
        try:
            self.file = netCDF4.Dataset(path)
        except OSError as error:
            raise StudyError(
                f"{path} cannot be read ({error.strerror or error}): delete it and start snakemake again, which trains the ensemble anew"
            ) from error
        netcdf.check_contract_version(path, vars(self.file))
        self.arms = [str(name) for name in self.file["arm"][:]]
        self.seeds = [int(seed) for seed in self.file["seed"][:]]
        self.tasks = [int(task) for task in self.file["task"][:]]
        self.shapes = {
            name: tuple(values.shape[3:])
            for name, values in self.file.variables.items()
            if values.ndim >= 3
        }
        self.settings = str(self.file.getncattr("settings"))

    def at(self, task: int) -> Tensor:
        """Parameters at the start of a task, in float64, shape ``(run, parameter)``."""
        runs, place = len(self.arms) * len(self.seeds), self.tasks.index(task)
        tensors = [
            np.asarray(self.file[name][:, :, place], np.float64).reshape(runs, -1)
            for name in self.shapes
        ]
        return torch.from_numpy(np.concatenate(tensors, axis=1))
