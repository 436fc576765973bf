"""States of runs at task boundaries, from which an intervention experiment continues them.

A checkpoint has the parameters only. To learn the next task as a run did, a copy also needs the
state of the optimizer and of the method.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from plasticity.errors import StudyError
from plasticity.storage.restart import RestartStates

RUNS = "alive"  # an array of every state; its length is the number of runs


class BoundaryStates:
    """The states of an ensemble while it trains, next to its restart states.

    Attributes:
        tasks: indices of the tasks at whose start a state is kept. The first is at least 1.
    """

    def __init__(self, restart: RestartStates, tasks: Sequence[int] = ()) -> None:
        self.tasks = list(tasks)
        self._restart = restart

    def save(self, first: int, task: int, state: Mapping[str, np.ndarray]) -> None:
        """Save the state of a chunk; do nothing if none is kept at the task.

        Args:
            first: index of the chunk's first run.
            task: index of the next task.
            state: arrays by name; the first dim is the run.

        Raises:
            StudyError: the disk is full, or the folder is not writable.
        """
        if task in self.tasks:
            self._restart.save(_name(first, task), state)

    def are_complete(self, first: int, task: int) -> bool:
        """Tell whether a chunk that restarts at a task has all states up to this task.

        Args:
            first: index of the chunk's first run.
            task: index of the next task.
        """
        names = [_name(first, earlier) for earlier in self.tasks if earlier <= task]
        return all(self._restart.load(name) is not None for name in names)

    def read(self, task: int, runs: int) -> dict[str, np.ndarray]:
        """Read the states of all runs at a task.

        Args:
            task: index of the next task.
            runs: number of runs of the ensemble.

        Returns:
            By name, shapes ``(run, …)``.

        Raises:
            StudyError: a state is missing or damaged.
        """
        chunks: list[dict[str, np.ndarray]] = []
        first = 0
        while first < runs:
            state = self._restart.load(_name(first, task))
            if state is None:
                raise StudyError(
                    f"{self._restart.folder}: the state of task {task} is missing or damaged. "
                    "Delete this folder and start snakemake again to train the ensemble again."
                )
            chunks.append(state)
            first += len(state[RUNS])
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _name(first: int, task: int) -> str:
    """Name the state of a chunk at the start of a task."""
    return f"{first}_task_{task}"
