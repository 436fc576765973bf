"""Checkpoints: a member's parameters at the start of each task, in one netCDF file per cohort.

netCDF, since every other result is: a format without code, described dims, no further dependency. A chunk is one task, so
a task is read without the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import netCDF4
import numpy as np
import torch
from torch import Tensor

from plasticity import contracts
from plasticity.errors import StudyError


@contextmanager
def writer(
    path: Path, shapes: Mapping[str, Sequence[int]], arms: Sequence[str], seeds: Sequence[int], tasks: int, stamp: Mapping[str, str]
) -> Iterator[Callable[[int, Tensor], None]]:
    """Write a cohort's checkpoints one task at a time; the file appears when all are in.

    Args:
        path: of the file.
        shapes: of each parameter, by name, in the order in which they lie in a row.
        arms: names.
        seeds: numbers.
        tasks: how many checkpoints there will be.
        stamp: as `provenance.stamp` gives it.

    Yields:
        ``save(task, parameters)`` for parameters of shape ``(arm, seed, parameter)``.
    """
    with contracts.whole(path) as part:
        with contracts.explained(path):
            file = netCDF4.Dataset(part, "w")
            file.setncatts({"title": "parameters at the start of each task", **stamp})
            for dim, values in {"arm": np.array(arms, object), "seed": np.array(seeds), "task": np.arange(tasks)}.items():
                file.createDimension(dim, len(values))
                coordinate = file.createVariable(dim, str if dim == "arm" else "i8", (dim,))
                coordinate[:] = values
                coordinate.setncatts({"long_name": contracts.COORDINATES[dim], "units": "1"})
            for name, shape in shapes.items():
                dims = [f"{name}_{axis}" for axis in range(len(shape))]
                for dim, size in zip(dims, shape, strict=True):
                    file.createDimension(dim, size)
                chunk = (len(arms), len(seeds), 1, *shape)
                variable = file.createVariable(name, "f4", ("arm", "seed", "task", *dims), chunksizes=chunk, fill_value=False)
                variable.setncatts({"long_name": f"parameter {name}", "units": "1"})

        def save(task: int, parameters: Tensor) -> None:
            sizes = [torch.Size(shape).numel() for shape in shapes.values()]
            parts = parameters.cpu().split(sizes, dim=-1)
            with contracts.explained(path):
                for (name, shape), values in zip(shapes.items(), parts, strict=True):
                    file[name][:, :, task] = values.unflatten(-1, tuple(shape)).numpy()
                file.sync()  # a full disk shows now, not when all is trained

        try:
            yield save
        finally:
            with contracts.explained(path):
                file.close()


class Checkpoints:
    """A cohort's checkpoints, read one task at a time.

    Attributes:
        arms, seeds: the members, arms outermost.
        shapes: of each parameter, by name, in the order in which they lie in a row.
        settings: what the cohort was trained with, as JSON.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `writer` made.

        Raises:
            StudyError: missing, truncated or not netCDF.
        """
        try:
            self.file = netCDF4.Dataset(path)
        except OSError as error:
            raise StudyError(
                f"{path} cannot be read ({error.strerror or error}): delete it and start snakemake again, which trains the cohort anew"
            ) from error
        self.arms = [str(name) for name in self.file["arm"][:]]
        self.seeds = [int(seed) for seed in self.file["seed"][:]]
        self.tasks = len(self.file.dimensions["task"])
        self.shapes = {name: tuple(values.shape[3:]) for name, values in self.file.variables.items() if values.ndim >= 3}
        self.settings = str(self.file.getncattr("settings"))

    def at(self, task: int) -> Tensor:
        """Parameters at the start of a task, in float64, shape ``(member, parameter)``."""
        members = len(self.arms) * len(self.seeds)
        tensors = [np.asarray(self.file[name][:, :, task], np.float64).reshape(members, -1) for name in self.shapes]
        return torch.from_numpy(np.concatenate(tensors, axis=1))
