"""An ensemble as one job trains it: in waves that fit into memory, each from where a killed job left it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr

from plasticity import log
from plasticity.config.models import Setting, Training
from plasticity.data import tasks
from plasticity.job import Job
from plasticity.models import architecture
from plasticity.storage import netcdf
from plasticity.storage.checkpoints import Rows
from plasticity.storage.restart import Resume
from plasticity.training import memory, outcomes
from plasticity.training.trainer import Members, train


def train_job(
    job: Job, arms: Mapping[str, Mapping[str, float]], kept: Resume, checkpoints: bool
) -> tuple[Rows, xr.Dataset]:
    """Train the runs that a job's settings name: each arm with each seed.

    Args:
        job: with the dataset's path, setting, training, method and seeds.
        arms: hyper-parameters by the name of the arm.
        kept: where the end of each task is kept.
        checkpoints: whether any are taken.

    Returns:
        The checkpoints' rows, and the outcomes as a dataset of the contract.

    Raises:
        StudyError: images that must be linearly separable and are not; no space.
    """
    setting, training = Setting.of(job.settings["setting"]), Training(**job.settings["training"])
    seeds, data = job.settings["seeds"], netcdf.read(job.path("data"))
    everyone = list(itertools.product(arms.values(), seeds))
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.fitting(setting, data).named_parameters()
    }
    recorded = range(0, setting.problem.tasks, training.checkpoint_every) if checkpoints else ()
    rows = Rows(kept.folder / "checkpoints.f4", recorded, len(everyone), shapes)
    values = train_in_waves(
        setting, job.settings["method"], everyone, data, training, rows, kept, job.memory
    )
    if diverged := int(values["status"][:, -1].sum()):
        log.log.warning(
            "%d of %d runs diverged; see the variable `status`", diverged, len(everyone)
        )
    of_tasks, steps = range(setting.problem.tasks), outcomes.curve_steps(setting.problem, training)
    coordinates = {"arm": list(arms), "seed": seeds, "task": of_tasks, "step": steps}
    split = {
        name: array.reshape(len(arms), len(seeds), *array.shape[1:])
        for name, array in values.items()
    }
    return rows, netcdf.dataset(
        outcomes.TABLE, split, coordinates, "outcomes of an ensemble", job.label
    )


def train_in_waves(
    setting: Setting,
    method: str,
    everyone: Sequence[tuple[Mapping[str, float], int]],
    data: xr.Dataset,
    training: Training,
    rows: Rows,
    kept: Resume,
    granted: int | None = None,
) -> dict[str, np.ndarray]:
    """Train all runs of an ensemble; where memory does not hold them all, some after the others, with the same results.

    Args:
        setting: problem, network and optimizer of all runs.
        method: its name.
        everyone: the ensemble's runs, each an arm and a seed.
        data: the prepared dataset.
        training: precision, and what is recorded.
        rows: where checkpoints go.
        kept: where the end of each task is kept.
        granted: bytes of memory that the job may take; by default all of the machine's.

    Returns:
        Outcomes by name, shape ``(run, task)`` or ``(run, task, step)``.

    Raises:
        StudyError: images that must be linearly separable and are not.
    """
    if setting.problem.separable:
        for seed in dict.fromkeys(seed for _, seed in everyone):
            condition = tasks.check_separable(setting.problem, data, seed)
            log.log.info(
                "the images of seed %d are linearly separable under any labels; condition number %.0f",
                seed,
                condition,
            )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    need, free = memory.per_run(setting, data), memory.available(device, granted, data.nbytes)
    waves = math.ceil(len(everyone) / max(1, free // need))
    if waves > 1:
        said = f"{len(everyone)} runs need about {len(everyone) * need / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
        log.log.warning("%s: they are trained in %d waves, with the same results", said, waves)
    found: list[dict[str, np.ndarray]] = []
    first = 0
    while first < len(everyone):
        state = kept.load(first)
        if state is not None and not rows.reach(first + len(state["alive"]), int(state["task"])):
            log.log.warning("%s is torn (its end is missing), so it starts afresh", rows.path)
            state = None
        # a wave that was begun is finished as it was begun, whatever fits by now
        size = math.ceil(len(everyone) / waves) if state is None else len(state["alive"])
        runs = Members(setting, method, everyone[first : first + size], data, training, device)
        if state is not None:
            runs.restore(state)
            log.log.info("going on after task %d of %d", runs.learner.task, setting.problem.tasks)
        what = f"train {kept.folder.parent}, runs {first} to {first + len(runs.alive) - 1}"
        train(runs, partial(rows.write, first), partial(kept.save, first), log.progress(what))
        found.append({name: values.numpy() for name, values in runs.outcomes.items()})
        first += len(runs.alive)
        del runs  # before the next ones take their place
    log.log.info("trained; at most %s of memory", memory.peak(device))
    return {name: np.concatenate([wave[name] for wave in found]) for name in found[0]}
