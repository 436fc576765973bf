"""Checkpoints: the parameters of runs at the start of tasks, in one netCDF file per ensemble.

netCDF is the format of all results: it holds no code, describes its dims and needs no other
package. A chunk of the file is one task, so a task is read without the others.
"""

import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import netCDF4
import numpy as np
import torch
from torch import Tensor

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError
from plasticity.storage import netcdf
from plasticity.storage.boundary_states import BoundaryStates

BYTES_PER_NUMBER = 4  # float32


class CheckpointRows:
    """Checkpoints of an ensemble while it trains, as raw float32 in one file.

    The file holds an array of shape ``(task, run, parameter)``. Rows may be written in any order,
    and more than once. So a job that restarts writes over the rows of the job that was killed. A
    checksum of each checkpoint shows whether the file was altered in the meantime.
    """

    def __init__(
        self, path: Path, tasks: Sequence[int], runs: int, shapes: Mapping[str, Sequence[int]]
    ) -> None:
        """Describe a file of checkpoints, which need not exist yet.

        Args:
            path: of the file.
            tasks: indices of the tasks at whose start there is a checkpoint.
            runs: number of runs.
            shapes: of each parameter by name, in their order in a row.
        """
        self.path = path
        self.tasks = list(tasks)
        self.runs = runs
        self.shapes = shapes
        self.width = sum(math.prod(shape) for shape in shapes.values())
        self._checksums: dict[int, np.ndarray] = {}  # by the first run of a chunk

    def write(self, first: int, task: int, parameters: Tensor) -> None:
        """Write the rows of some runs; do nothing if the task has no checkpoint.

        Args:
            first: index of the first of these runs.
            task: index of the task.
            parameters: shape ``(run, parameter)``.

        Raises:
            StudyError: the disk is full, or the folder is not writable.
        """
        if task not in self.tasks:
            return
        index = self.tasks.index(task)
        row = index * self.runs + first
        values = parameters.to("cpu", torch.float32).contiguous().numpy()
        with explain_write_errors(self.path):
            mode = "r+b" if self.path.exists() else "wb"
            with self.path.open(mode) as file:
                file.seek(BYTES_PER_NUMBER * self.width * row)
                file.write(values.data)
                file.flush()
                os.fsync(file.fileno())  # before the restart state that relies on it
        self.checksums(first)[index] = zlib.crc32(values.data)

    def checksums(self, first: int) -> np.ndarray:
        """Return a checksum of what a chunk wrote for each checkpoint; 0 where it wrote nothing.

        Args:
            first: index of the chunk's first run.

        Returns:
            CRC-32, shape ``(checkpoint,)``.
        """
        return self._checksums.setdefault(first, np.zeros(len(self.tasks), np.uint32))

    def restore(self, first: int, runs: int, task: int, checksums: np.ndarray) -> bool:
        """Continue after a restart, if the file still holds what a chunk wrote before a task.

        Args:
            first: index of the chunk's first run.
            runs: number of the chunk's runs.
            task: all checkpoints before this task were written.
            checksums: from `checksums`, when these checkpoints were written.

        Returns:
            Whether the file is complete and unaltered.
        """
        self._checksums[first] = checksums.copy()
        for index, checkpoint in enumerate(self.tasks):
            if checkpoint < task and self._checksum_in_file(first, runs, index) != checksums[index]:
                return False
        return True

    def _checksum_in_file(self, first: int, runs: int, index: int) -> int | None:
        """Compute the checksum of a chunk's rows of a checkpoint; None if they are missing."""
        size = BYTES_PER_NUMBER * self.width * runs
        try:
            with self.path.open("rb") as file:
                file.seek(BYTES_PER_NUMBER * self.width * (index * self.runs + first))
                content = file.read(size)
        except OSError:
            return None
        return zlib.crc32(content) if len(content) == size else None

    def read(self, task: int) -> np.ndarray:
        """Read the rows of all runs at a task, shape ``(run, parameter)``."""
        count = self.runs * self.width
        offset = BYTES_PER_NUMBER * count * self.tasks.index(task)
        rows = np.fromfile(self.path, np.float32, count, offset=offset)
        return rows.reshape(self.runs, self.width)


def write(
    path: Path,
    rows: CheckpointRows,
    arms: Sequence[str],
    seeds: Sequence[int],
    stamp: Mapping[str, str],
    states: BoundaryStates | None = None,
) -> None:
    """Write the checkpoints of an ensemble atomically, one task at a time.

    The state at a task boundary is a group of the file, such as ``state_4``: what a run had at the
    start of task 4, before anything that setting or method change there.

    Args:
        path: of the netCDF file.
        rows: of all runs, with the seeds of the first arm first.
        arms: names of the arms.
        seeds: of each arm.
        stamp: from `code_digest.stamp`.
        states: at the task boundaries where an intervention experiment continues the runs.

    Raises:
        StudyError: the disk is full, or the folder is not writable.
    """
    with (
        atomic_write(path) as part,
        explain_write_errors(path),
        netCDF4.Dataset(part, "w") as file,
    ):
        file.setncatts({"title": "parameters at the start of tasks", **stamp})
        _create_coordinate(file, "arm", np.array(arms, object), str)
        _create_coordinate(file, "seed", np.array(seeds), "i8")
        _create_coordinate(file, "task", np.array(rows.tasks), "i8")
        for name, shape in rows.shapes.items():
            _create_parameter(file, name, shape)
        for index, task in enumerate(rows.tasks):
            for name, values in _split(rows.read(task), rows.shapes):
                file[name][:, :, index] = values.reshape(len(arms), len(seeds), *values.shape[1:])
        if states is not None:
            _write_states(file, states, rows.runs, (len(arms), len(seeds)))


def _create_coordinate(
    file: netCDF4.Dataset, dim: str, values: np.ndarray, dtype: str | type[str]
) -> None:
    """Create a dim and its coordinate."""
    file.createDimension(dim, len(values))
    coordinate = file.createVariable(dim, dtype, (dim,))
    coordinate[:] = values
    coordinate.setncatts({"long_name": netcdf.COORDINATES[dim], "units": "1"})


def _create_parameter(file: netCDF4.Dataset, name: str, shape: Sequence[int]) -> None:
    """Create the variable of a parameter, with one chunk per task."""
    dims = [f"{name}_{axis}" for axis in range(len(shape))]
    for dim, size in zip(dims, shape, strict=True):
        file.createDimension(dim, size)
    chunk = (len(file.dimensions["arm"]), len(file.dimensions["seed"]), 1, *shape)
    variable = file.createVariable(
        name, "f4", ("arm", "seed", "task", *dims), chunksizes=chunk, fill_value=False
    )
    variable.setncatts({"long_name": f"parameter {name}", "units": "1"})


def _state_group(task: int) -> str:
    """Name the group of the state at the start of a task."""
    return f"state_{task}"


def _write_states(
    file: netCDF4.Dataset, states: BoundaryStates, runs: int, shape: tuple[int, int]
) -> None:
    """Write the states of all runs, one group per task; `shape` has the lengths of arm and seed."""
    for task in states.tasks:
        group = file.createGroup(_state_group(task))
        for name, values in states.read(task, runs).items():
            _write_state(group, name, values.reshape(*shape, *values.shape[1:]))


def _write_state(group: netCDF4.Group, name: str, values: np.ndarray) -> None:
    """Write an array of a state, shape ``(arm, seed, …)``; booleans become bytes."""
    dims = [f"{name}_{axis}" for axis in range(values.ndim - 2)]
    for dim, size in zip(dims, values.shape[2:], strict=True):
        group.createDimension(dim, size)
    stored = values.astype(np.int8) if values.dtype == bool else values
    variable = group.createVariable(name, stored.dtype, ("arm", "seed", *dims), fill_value=False)
    variable[:] = stored
    meaning = f"{name.replace('_', ' ')} at the end of the previous task"
    variable.setncatts({"long_name": meaning, "units": "1"})


def _split(
    rows: np.ndarray, shapes: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Split rows, shape ``(run, parameter)``, into parameters, shape ``(run, *shape)``, by name."""
    start = 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        yield name, rows[:, start:end].reshape(len(rows), *shape)
        start = end


class Checkpoints:
    """Checkpoints of an ensemble, read one task at a time.

    Attributes:
        arms, seeds: of the runs; the seeds of the first arm come first.
        tasks: indices of the tasks at whose start there is a checkpoint.
        shapes: of each parameter by name, in their order in a row.
        state_tasks: indices of the tasks at whose start there is a state.
        settings: with which the ensemble was trained, as JSON.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `write` wrote.

        Raises:
            StudyError: the file is missing, truncated, not netCDF, or follows another contract
                version.
        """
        try:
            self.file = netCDF4.Dataset(path)
        except OSError as error:
            raise StudyError(
                f"{path} cannot be read ({error.strerror or error}): delete it, then start "
                "snakemake again to train the ensemble again"
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
        self.state_tasks = [
            int(name.removeprefix("state_")) for name in self.file.groups if "state_" in name
        ]
        self.settings = str(self.file.getncattr("settings"))

    def at(self, task: int) -> Tensor:
        """Read the parameters at the start of a task, in float64, shape ``(run, parameter)``."""
        runs = len(self.arms) * len(self.seeds)
        index = self.tasks.index(task)
        tensors = []
        for name in self.shapes:
            values = np.asarray(self.file[name][:, :, index], np.float64)
            tensors.append(values.reshape(runs, -1))
        return torch.from_numpy(np.concatenate(tensors, axis=1))

    def state(self, task: int) -> dict[str, np.ndarray]:
        """Read the state of all runs at a task boundary.

        Args:
            task: index of the next task.

        Returns:
            By name as `Trainer.boundary_state` names it, shapes ``(run, …)``.

        Raises:
            StudyError: no state was stored there.
        """
        if task not in self.state_tasks:
            raise StudyError(
                f"{self.file.filepath()} has no state of the optimizer at the start of task "
                f"{task}, so copies cannot continue as the run did. Delete the file and start "
                "snakemake again to train the ensemble again."
            )
        runs = len(self.arms) * len(self.seeds)
        group = self.file[_state_group(task)]
        arrays = {name: np.asarray(values[:]) for name, values in group.variables.items()}
        return {name: values.reshape(runs, *values.shape[2:]) for name, values in arrays.items()}
