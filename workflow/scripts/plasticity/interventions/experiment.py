"""Intervention experiments: change checkpoints on purpose, measure them, train them for one task.

Every checkpoint at a task boundary is copied once per treatment. Each copy is treated, measured on
the next task's data, and learns that task from the same data in the same order. So copies of one
checkpoint differ only in their treatment. The copy with the treatment `none` repeats what the run
did, to the bit.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import UNTREATED, Curvature, Setting, Training
from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.interventions import variables
from plasticity.interventions.subject import Subject
from plasticity.models.ensemble import default_device
from plasticity.storage.checkpoints import Checkpoints
from plasticity.storage.restart import RestartStates
from plasticity.training import memory
from plasticity.training.learner import Learner
from plasticity.training.trainer import Trainer


@dataclass(frozen=True)
class Treatment:
    """A treatment with one strength; there is one copy of each checkpoint for it.

    Attributes:
        name: of the copy, such as ``shrink(strength=0.3)``.
        treatment: name of its file.
        strength: None if it takes none.
        family: control, restoring, harmful or preserving.
    """

    name: str
    treatment: str
    strength: float | None
    family: str

    @property
    def module(self) -> ModuleType:
        """The file of the treatment."""
        return registry.load("treatments", self.treatment)

    def treat(self, subject: Subject) -> dict[str, Tensor]:
        """Return the treated parameters by name, in float64.

        Raises:
            StudyError: the network cannot take the treatment, or its file returns something else.
        """
        arguments = () if self.strength is None else (self.strength,)
        treated: dict[str, Tensor] = self.module.treat(subject, *arguments)
        expected = {name: tensor.shape for name, tensor in subject.parameters.items()}
        if {name: tensor.shape for name, tensor in treated.items()} != expected:
            raise StudyError(
                f"treatments/{self.treatment}.py: treat does not return all parameters with their "
                "names and shapes. Return `subject.with_changes(…)`."
            )
        return treated


class Part(NamedTuple):
    """Copies whose results are saved together: some treatments of one task and one arm.

    Attributes:
        task: index of the task that they learn.
        arm: index of the arm.
        treatments: indices of the treatments.
    """

    task: int
    arm: int
    treatments: range

    @property
    def name(self) -> str:
        """Name of its restart state."""
        first, end = self.treatments.start, self.treatments.stop
        return f"{self.task}_{self.arm}_{first}_{end}"


class Copies:
    """The source of the measures: the parameters of treated copies, as an ensemble has them.

    Attributes:
        arms: names of the treatments.
        seeds: of the runs.
        tasks: the one task that the copies learn.
        shapes: of each parameter by name.
    """

    def __init__(
        self, treatments: Sequence[str], checkpoints: Checkpoints, task: int, rows: Tensor
    ) -> None:
        """Describe the copies.

        Args:
            treatments: names of the treatments.
            checkpoints: of the ensemble.
            task: that the copies learn.
            rows: parameters, shape ``(treatment, seed, parameter)``.
        """
        self.arms = list(treatments)
        self.seeds = checkpoints.seeds
        self.tasks = [task]
        self.shapes = checkpoints.shapes
        self._rows = rows.flatten(0, 1).double()

    def at(self, task: int) -> Tensor:
        """Return the parameters, shape ``(treatment · seed, parameter)``; there is one task."""
        return self._rows


class Experiment:
    """The intervention experiment of an ensemble."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        settings: Mapping[str, Any],
        treatments: Sequence[Treatment],
        curvature: Curvature,
        data: xr.Dataset,
        memory_limit: int | None = None,
    ) -> None:
        """Describe an experiment.

        Args:
            checkpoints: of the ensemble, with states at the treated tasks.
            settings: with which the ensemble was trained, as its training job got them.
            treatments: of each checkpoint.
            curvature: how the copies are measured.
            data: the prepared dataset.
            memory_limit: bytes that the job may use; None means all memory of the machine.
        """
        self._checkpoints = checkpoints
        self._setting = Setting.of(settings["setting"])
        self._method: str = settings["method"]
        self._arms: list[dict[str, float]] = settings["arms"]
        self._training = Training(**settings["training"])
        self._treatments = list(treatments)
        self._curvature = curvature
        self._data = data
        self._memory_limit = memory_limit
        free = memory.available(default_device(), memory_limit, data.nbytes)
        self._copies_at_once = max(1, free // memory.per_run(self._setting, data))
        self.table = variables.table(curvature, self._setting.problem)

    def run(
        self,
        tasks: Sequence[int],
        restart: RestartStates,
        progress: Callable[[list[Part]], Iterable[Part]] = iter,
    ) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
        """Treat, measure and train copies of the checkpoints of some tasks.

        Args:
            tasks: indices of the tasks that the copies learn.
            restart: keeps what a restarted job has done already.
            progress: wraps the loop over parts.

        Returns:
            Variables by name, with the dims of `variables.table`, and their coordinates.

        Raises:
            StudyError: a checkpoint has no state, or the network cannot take a treatment.
        """
        blocks: list[str] = []
        arrays: dict[str, np.ndarray] = {}
        shape = (len(self._arms), len(self._checkpoints.seeds), len(tasks), len(self._treatments))
        for part in progress(list(self._parts(tasks))):
            values = restart.load(part.name)
            if values is None:
                values = self._run_part(part)
                restart.save(part.name, values)
            blocks = [str(block) for block in values["block"]]
            for name, array in values.items():
                if name == "block":
                    continue
                if name not in arrays:
                    arrays[name] = np.zeros((*shape, *array.shape[2:]), array.dtype)
                position = list(tasks).index(part.task)
                treatments = slice(part.treatments.start, part.treatments.stop)
                arrays[name][part.arm, :, position, treatments] = array
        families = [variables.FAMILY_CODES[treatment.family] for treatment in self._treatments]
        strengths = [treatment.strength for treatment in self._treatments]
        arrays["treatment_family"] = np.array(families)
        arrays["treatment_strength"] = np.array(strengths, float)  # None becomes NaN
        coordinates: dict[str, list[Any]] = {
            "arm": list(self._checkpoints.arms),
            "seed": list(self._checkpoints.seeds),
            "task": list(tasks),
            "treatment": [treatment.name for treatment in self._treatments],
            "block": blocks,
        }
        return arrays, coordinates

    def _parts(self, tasks: Sequence[int]) -> Iterator[Part]:
        """Divide the copies into parts that fit into memory. Results do not depend on the parts."""
        treatments_at_once = max(1, self._copies_at_once // len(self._checkpoints.seeds))
        for task in tasks:
            for arm in range(len(self._arms)):
                for treatments in _split(len(self._treatments), treatments_at_once):
                    yield Part(task, arm, treatments)

    def _run_part(self, part: Part) -> dict[str, np.ndarray]:
        """Treat, measure and train the copies of a part.

        Returns:
            Outcomes, measures and statuses by name, shapes ``(seed, treatment, …)``, and the names
            of the blocks as ``block``.
        """
        seeds = len(self._checkpoints.seeds)
        seeds_at_once = max(1, self._copies_at_once // len(part.treatments))
        chunks = [self._train_copies(part, some) for some in _split(seeds, seeds_at_once)]
        values = {
            name: np.concatenate([chunk[name] for chunk in chunks], axis=1) for name in chunks[0]
        }
        rows = torch.from_numpy(values.pop("parameters"))
        measures, blocks = self._measure(part, rows)
        values |= measures
        by_seed = {name: array.swapaxes(0, 1) for name, array in values.items()}
        return by_seed | {"block": np.array(blocks)}

    def _train_copies(self, part: Part, seeds: range) -> dict[str, np.ndarray]:
        """Treat and train the copies of some seeds.

        Returns:
            Outcomes, statuses and the treated ``parameters``, by name, shapes
            ``(treatment, seed, …)``.
        """
        treatments = [self._treatments[index] for index in part.treatments]
        trainer, initial = self._continue_runs(part, seeds)
        was_alive = trainer.recorder.alive.clone()
        has_changed = _treat_copies(trainer, initial, treatments, was_alive)
        # a copy, because training changes them in place
        values = {"parameters": trainer.learner.parameters.flat.detach().cpu().numpy().copy()}
        trainer.learn()
        for name in variables.outcomes_of_copies(self._setting.problem):
            values[name] = trainer.recorder.outcomes[name][:, part.task].numpy()
        values["copy_status"] = _statuses(was_alive, trainer.recorder.alive, has_changed)
        return {
            name: array.reshape(len(treatments), len(seeds), *array.shape[1:])
            for name, array in values.items()
        }

    def _continue_runs(self, part: Part, seeds: range) -> tuple[Trainer, Tensor]:
        """Continue one copy of each run per treatment at the start of the part's task.

        Returns:
            The trainer after all that setting and method change at the task boundary, and the
            initial parameters of its copies, shape ``(copy, parameter)``. Copies are ordered by
            treatment, then by seed.
        """
        all_seeds = self._checkpoints.seeds
        runs = [part.arm * len(all_seeds) + seed for seed in seeds] * len(part.treatments)
        arms_and_seeds = [(self._arms[part.arm], all_seeds[run % len(all_seeds)]) for run in runs]
        trainer = Trainer(self._setting, self._method, arms_and_seeds, self._data, self._training)
        initial = trainer.learner.parameters.flat.detach().cpu().double()
        state = self._checkpoints.state(part.task)
        of_copies = {name: values[runs] for name, values in state.items()}
        trainer.restore_boundary(part.task, of_copies)
        trainer.on_task_start()
        return trainer, initial

    def _measure(self, part: Part, rows: Tensor) -> tuple[dict[str, np.ndarray], list[Any]]:
        """Measure copies as they are before they learn.

        Args:
            part: the task and the treatments.
            rows: parameters, shape ``(treatment, seed, parameter)``.

        Returns:
            Measures by name, shapes ``(treatment, seed[, block])``, and the names of the blocks.
        """
        device = default_device()
        free = memory.available(device, self._memory_limit, self._data.nbytes)
        treatments = [self._treatments[index].name for index in part.treatments]
        copies = Copies(treatments, self._checkpoints, part.task, rows)
        measured, coordinates = measure.measure(
            copies, self._setting, self._curvature, self._data, memory=free, device=device
        )
        measures = {}
        for name, variable in variables.measures_of_copies(self._curvature).items():
            of_task = measured[name][:, :, 0]  # the only one
            has_points = "evaluation_point" in variable.dims
            measures[name] = of_task[:, :, 0] if has_points else of_task
        return measures, coordinates["block"]


@torch.no_grad()
def _treat_copies(
    trainer: Trainer, initial: Tensor, treatments: Sequence[Treatment], alive: Tensor
) -> Tensor:
    """Treat the parameters of copies, and clear the optimizer's state as their treatments say.

    Args:
        trainer: its learner is changed. Its copies are ordered by treatment, then by seed.
        initial: the copies' parameters at task 0, shape ``(copy, parameter)``, float64.
        treatments: one for each block of copies.
        alive: which copies are finite, shape ``(copy,)``. The others are not treated.

    Returns:
        Whether anything of a copy changed, shape ``(copy,)``; true for copies without a treatment,
        which are not meant to.
    """
    learner = trainer.learner
    seeds = len(learner.seeds)
    flat = learner.parameters.flat.detach()
    before = flat.cpu().double()
    cleared = torch.zeros_like(flat, dtype=torch.bool)
    has_changed = torch.zeros(len(flat), dtype=torch.bool)
    inputs = trainer.batches.inputs.unflatten(0, (seeds, -1)).cpu().double()
    for copy in torch.nonzero(alive).flatten().tolist():
        treatment, seed = treatments[copy // seeds], copy % seeds
        subject = Subject(
            learner.network,
            learner.setting.network,
            parameters=_split_row(learner, before[copy]),
            initial=_split_row(learner, initial[copy]),
            inputs=inputs[seed, : learner.setting.problem.samples],
            seed=learner.seeds[seed],
            task=learner.task,
            treatment=treatment.treatment,
        )
        treated = treatment.treat(subject)
        row = torch.cat([treated[name].flatten() for name in learner.parameters.shapes])
        flat[copy] = row.to(flat)
        is_different = flat[copy] != before[copy].to(flat)
        cleared[copy] = {
            "kept": torch.zeros_like(is_different),
            "cleared": torch.ones_like(is_different),
            "cleared_where_changed": is_different,
        }[treatment.module.OPTIMIZER_STATE]
        has_changed[copy] = treatment.treatment == UNTREATED or is_different.any()
    for mean in learner.optimizer.means.values():
        has_changed |= ((mean[:, : flat.shape[1]] != 0) & cleared).any(dim=1).cpu()
    learner.optimizer.reset_state(cleared)
    return has_changed


def _split_row(learner: Learner, row: Tensor) -> dict[str, Tensor]:
    """Split the parameters of one copy, shape ``(parameter,)``, into new tensors by name."""
    return {name: tensor[0].clone() for name, tensor in learner.parameters.split(row[None]).items()}


def _statuses(was_alive: Tensor, is_alive: Tensor, has_changed: Tensor) -> np.ndarray:
    """Name what became of each copy by the codes of `variables.STATUS`, shape ``(copy,)``."""
    codes = variables.STATUS
    status = torch.full(was_alive.shape, codes["trained"], dtype=torch.int8)
    status[~has_changed] = codes["unchanged"]
    status[~is_alive.cpu()] = codes["diverged"]
    status[~was_alive.cpu()] = codes["run_diverged"]
    return status.numpy()


def _split(number: int, at_once: int) -> list[range]:
    """Split ``range(number)`` into as few ranges as possible, of equal length up to the last."""
    length = math.ceil(number / math.ceil(number / at_once))
    return [range(first, min(first + length, number)) for first in range(0, number, length)]
