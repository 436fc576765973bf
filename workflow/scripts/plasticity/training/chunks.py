"""Training of an ensemble in chunks that fit into memory, each from its last saved state."""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr

from plasticity import log
from plasticity.config.models import Setting, Training
from plasticity.data import tasks
from plasticity.models import architecture
from plasticity.models.ensemble import default_device
from plasticity.storage import netcdf
from plasticity.storage.boundary_states import BoundaryStates
from plasticity.storage.checkpoints import CheckpointRows
from plasticity.storage.restart import RestartStates
from plasticity.training import memory, outcomes
from plasticity.training.trainer import Trainer, train

CHECKSUMS = "checkpoint_checksums"  # in a restart state
Run = tuple[Mapping[str, float], int]  # hyperparameters of the method, and a seed


class Trained(NamedTuple):
    """What the training of an ensemble leaves.

    Attributes:
        rows: all checkpoints.
        outcomes: a dataset with dims ``(arm, seed, task, …)``.
        states: at the boundaries where an intervention experiment continues the runs.
    """

    rows: CheckpointRows
    outcomes: xr.Dataset
    states: BoundaryStates


def train_ensemble(
    setting: Setting,
    method: str,
    arms: Mapping[str, Mapping[str, float]],
    seeds: Sequence[int],
    data: xr.Dataset,
    training: Training,
    restart: RestartStates,
    *,
    with_checkpoints: bool,
    memory_limit: int | None,
    attributes: Mapping[str, str],
    state_tasks: Sequence[int] = (),
) -> Trained:
    """Train each arm with each seed.

    Args:
        setting: problem, network and optimizer of all runs.
        method: name of the method.
        arms: hyperparameters by the name of the arm.
        seeds: each is combined with each arm.
        data: the prepared dataset.
        training: precision, and what is recorded.
        restart: saves the state at the end of each task.
        with_checkpoints: false for runs whose parameters nobody measures.
        memory_limit: bytes that the job may use; None means all memory of the machine.
        attributes: global attributes of the outcomes.
        state_tasks: tasks at whose start an intervention experiment continues the runs.

    Returns:
        Checkpoints, outcomes and states.

    Raises:
        StudyError: images should be linearly separable and are not, or the disk is full.
    """
    problem = setting.problem
    runs = list(itertools.product(arms.values(), seeds))
    network = architecture.build_for(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    recorded = range(0, problem.tasks, training.checkpoint_every) if with_checkpoints else ()
    rows = CheckpointRows(restart.folder / "checkpoints.f4", recorded, len(runs), shapes)
    states = BoundaryStates(restart, state_tasks)
    values = train_in_chunks(
        setting, method, runs, data, training, rows, restart, memory_limit, states
    )
    if diverged := int(values["status"][:, -1].sum()):
        log.log.warning("%d of %d runs diverged; see the variable `status`", diverged, len(runs))
    coordinates = {
        "arm": list(arms),
        "seed": seeds,
        "task": range(problem.tasks),
        "step": outcomes.curve_steps(problem, training),
    }
    by_arm = {
        name: array.reshape(len(arms), len(seeds), *array.shape[1:])
        for name, array in values.items()
    }
    title = "outcomes of an ensemble"
    dataset = netcdf.dataset(outcomes.TABLE, by_arm, coordinates, title, attributes)
    return Trained(rows, dataset, states)


def train_in_chunks(
    setting: Setting,
    method: str,
    runs: Sequence[Run],
    data: xr.Dataset,
    training: Training,
    rows: CheckpointRows,
    restart: RestartStates,
    memory_limit: int | None = None,
    states: BoundaryStates | None = None,
) -> dict[str, np.ndarray]:
    """Train all runs of an ensemble, in chunks if they do not fit into memory together.

    The results do not depend on the chunks.

    Args:
        setting: problem, network and optimizer of all runs.
        method: name of the method.
        runs: hyperparameters of the method, and the seed, of each run.
        data: the prepared dataset.
        training: precision, and what is recorded.
        rows: stores the checkpoints.
        restart: saves the state at the end of each task.
        memory_limit: bytes that the job may use; None means all memory of the machine.
        states: keeps the states at some task boundaries; None means at none.

    Returns:
        Outcomes by name, shape ``(run, task)`` or ``(run, task, step)``.

    Raises:
        StudyError: images should be linearly separable and are not.
    """
    states = states or BoundaryStates(restart)
    if setting.problem.separable:
        check_all_separable(setting, data, [seed for _, seed in runs])
    device = default_device()
    free = memory.available(device, memory_limit, data.nbytes)
    size = plan_chunks(setting, data, len(runs), free)
    create = partial(Trainer, setting, method, data=data, training=training, device=device)
    results: list[dict[str, np.ndarray]] = []
    first = 0
    while first < len(runs):
        state = load_state(restart, rows, states, first)
        # a chunk that was started keeps its size, even if another size fits now
        count = size if state is None else len(state["alive"])
        chunk = runs[first : first + count]
        results.append(train_chunk(create(chunk), state, rows, restart, states, first))
        first += len(chunk)
    log.log.info("trained; at most %s of memory", memory.peak(device))
    return {name: np.concatenate([chunk[name] for chunk in results]) for name in results[0]}


def check_all_separable(setting: Setting, data: xr.Dataset, seeds: Sequence[int]) -> None:
    """Check that the images of each seed are linearly separable.

    Raises:
        StudyError: the images of a seed are not.
    """
    for seed in dict.fromkeys(seeds):
        condition = tasks.check_separable(setting.problem, data, seed)
        log.log.info(
            "the images of seed %d are linearly separable under any labels; condition number %.0f",
            seed,
            condition,
        )


def plan_chunks(setting: Setting, data: xr.Dataset, runs: int, free: int) -> int:
    """Choose the size of chunks: as few as possible, and of equal size up to the last one.

    Args:
        setting: problem and network of all runs.
        data: the prepared dataset.
        runs: number of runs.
        free: available bytes.

    Returns:
        Number of runs in a chunk, at least 1.
    """
    per_run = memory.per_run(setting, data)
    chunks = math.ceil(runs / max(1, free // per_run))
    if chunks > 1:
        log.log.warning(
            "%d runs need about %s MB, and %s MB are free: training them in %d chunks, "
            "with the same results",
            runs,
            f"{runs * per_run / 1e6:,.1f}",
            f"{free / 1e6:,.1f}",
            chunks,
        )
    return math.ceil(runs / chunks)


def load_state(
    restart: RestartStates, rows: CheckpointRows, states: BoundaryStates, first: int
) -> dict[str, np.ndarray] | None:
    """Load the last saved state of a chunk.

    Args:
        restart: states by the first run of a chunk.
        rows: checkpoints, which must be those that the state was saved with.
        states: at task boundaries, which must be complete up to the state's task.
        first: index of the chunk's first run.

    Returns:
        The state, or None if the chunk must start from task 0.
    """
    state = restart.load(first)
    if state is None:
        return None
    checksums = state.pop(CHECKSUMS)
    if not rows.restore(first, len(state["alive"]), int(state["task"]), checksums):
        log.log.warning(
            "%s is truncated or altered, so it is ignored and training starts over", rows.path
        )
        return None
    if not states.are_complete(first, int(state["task"])):
        log.log.warning(
            "%s: the state of a task boundary is missing or damaged, so training starts over",
            restart.folder,
        )
        return None
    return state


def train_chunk(
    trainer: Trainer,
    state: Mapping[str, np.ndarray] | None,
    rows: CheckpointRows,
    restart: RestartStates,
    states: BoundaryStates,
    first: int,
) -> dict[str, np.ndarray]:
    """Train one chunk from its last saved state, or from task 0.

    Args:
        trainer: a new trainer of the chunk's runs.
        state: where to continue; None means task 0.
        rows: stores the checkpoints.
        restart: saves the state at the end of each task.
        states: keeps the states at some task boundaries.
        first: index of the chunk's first run.

    Returns:
        Outcomes by name, shape ``(run, task)`` or ``(run, task, step)``.
    """
    if state is not None:
        trainer.restore(state)
        total = trainer.setting.problem.tasks
        log.log.info("going on after task %d of %d", trainer.learner.task, total)
    last = first + len(trainer.recorder.alive) - 1
    label = f"train {log.name_of_runs(restart.folder.parent)}, runs {first} to {last}"

    def save(state: Mapping[str, np.ndarray]) -> None:
        # first, because a job that restarts from `state` relies on it
        states.save(first, trainer.learner.task, trainer.boundary_state())
        restart.save(first, {**state, CHECKSUMS: rows.checksums(first)})

    train(trainer, partial(rows.write, first), save, log.progress(label, "task"))
    return {name: values.numpy() for name, values in trainer.recorder.outcomes.items()}
