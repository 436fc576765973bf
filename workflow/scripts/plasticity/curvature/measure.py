"""Measure checkpoints: curvature, features, units and weights, which may explain plasticity.

All runs of an ensemble are measured together, in float64. A block is a layer, the last two layers,
or all layers.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import Curvature, Setting
from plasticity.curvature import (
    displacement,
    gradient_measures,
    spectrum,
    spectrum_variables,
    unit_measures,
)
from plasticity.curvature.batch_loss import BatchLoss
from plasticity.curvature.blocks import ALL, LAST_TWO, blocks_of
from plasticity.curvature.displacement import TopEigenvectors
from plasticity.curvature.gram import GramMatrices, loss_gradients
from plasticity.curvature.lanczos import Quadrature
from plasticity.curvature.operator import Operator
from plasticity.curvature.spectrum import Spectrum
from plasticity.data import shift, tasks
from plasticity.log import log
from plasticity.models import architecture, ensemble, losses
from plasticity.models.ensemble import Parameters, is_batchable
from plasticity.storage.netcdf import RUN, Variable

# Pixels of tasks' data, or numbers of matrices, that are in memory together.
AT_ONCE = 2**25
BYTES_PER_NUMBER = 32  # of these: a float64, its copies and what is computed from it
STATUS = {"measured": 0, "diverged": 1, "no_data": 2, "not_asked_for": 3}
PREVIOUS, FRESH = "previous", "fresh"
TOP_VECTORS = f"{displacement.OPERATOR}_top_vectors"  # only until the displacement is known

STATUS_VARIABLE = {
    "curvature_status": Variable(
        (*RUN, "evaluation_point"), "whether there was something to measure", "int8", STATUS
    ),
}


def table(curvature: Curvature) -> dict[str, Variable]:
    """Describe all measures, by name."""
    return (
        unit_measures.TABLE
        | gradient_measures.TABLE
        | STATUS_VARIABLE
        | spectrum_variables.table(curvature)
        | displacement.table(curvature)
    )


class CheckpointSource(Protocol):
    """Parameters of an ensemble at the start of tasks, for example `checkpoints.Checkpoints`."""

    arms: list[str]
    seeds: list[int]
    tasks: list[int]
    shapes: dict[str, tuple[int, ...]]

    def at(self, task: int) -> Tensor:
        """Return the parameters in float64, shape ``(run, parameter)``, arms outermost."""


class TaskStore(Protocol):
    """Keeps the measures of each task until the job ends, for example `restart.RestartStates`."""

    def save(self, place: int, state: Mapping[str, np.ndarray], /) -> None:
        """Save the measures of a task."""

    def load(self, place: int, /) -> dict[str, np.ndarray] | None:
        """Return the measures of a task, or None."""


class TaskData(NamedTuple):
    """Training samples of a task.

    Attributes:
        inputs: shape ``(seed, sample, …)`` or ``(sample, …)``.
        targets: shape ``(seed, sample)`` or ``(sample,)``.
    """

    inputs: Tensor
    targets: Tensor

    def of_run(self, run: int) -> "TaskData":
        """Select the samples of one run."""
        return TaskData(self.inputs[run], self.targets[run])

    def first(self, samples: int) -> "TaskData":
        """Copy the first samples of each run."""
        return TaskData(self.inputs[:, :samples].clone(), self.targets[:, :samples].clone())


class Point(NamedTuple):
    """What operators are computed on.

    Attributes:
        task: the next task.
        data: for the operator: of the previous or the next task.
        next_data: for the gradient: always of the next task.
    """

    task: int
    data: TaskData
    next_data: TaskData

    def of_run(self, run: int) -> "Point":
        """Select the samples of one run."""
        return Point(self.task, self.data.of_run(run), self.next_data.of_run(run))


def measure(
    checkpoints: CheckpointSource,
    setting: Setting,
    curvature: Curvature,
    data: xr.Dataset,
    progress: Callable[[list[int]], Iterable[int]] = iter,
    saved_tasks: TaskStore | None = None,
    memory: float = float("inf"),
    device: torch.device = torch.device("cpu"),  # noqa: B008 - it is frozen
) -> tuple[dict[str, np.ndarray], dict[str, list[object]]]:
    """Measure an ensemble at the start of every measured task.

    Args:
        checkpoints: of the ensemble.
        setting: of the ensemble.
        curvature: operators, sample counts, evaluation points and tasks to measure.
        data: the prepared dataset.
        progress: wraps the loop over tasks.
        saved_tasks: where a restarted job finds the tasks that it has measured.
        memory: bytes for the matrix of an exact spectrum and its eigenvalues.
        device: where everything is computed.

    Returns:
        Variables by name, with dims as in the netCDF files, and their coordinates. NaN where there
        is nothing to measure: before the first task, for a diverged run, and for an operator that
        the task does not ask for.

    Raises:
        StudyError: if an operator does not exist for the network, or if a spectrum is too large
            and must not be estimated.
    """
    measurer = CheckpointMeasurer(checkpoints, setting, curvature, data, memory, device)
    measured_tasks = [task for task in checkpoints.tasks if task % curvature.every == 0]
    results = _measure_tasks(measurer, measured_tasks, progress, saved_tasks)

    described = table(curvature)
    variables = {
        name: array for name, array in _stack_results(results).items() if name in described
    }
    ranked = [name for name in variables if "rank" in described[name].dims]
    ranks = max((variables[name].shape[-1] for name in ranked), default=0)
    for name in ranked:
        variables[name] = _pad(variables[name], ranks)
    coordinates: dict[str, list[object]] = {
        "arm": list(checkpoints.arms),
        "seed": list(checkpoints.seeds),
        "task": list(measured_tasks),
        "evaluation_point": list(curvature.evaluation_points),
        "block": list(measurer.blocks),
        "rank": list(range(ranks)),
        "grid": spectrum.grid().tolist(),
    }
    dims = {dim for name in variables for dim in described[name].dims}
    return variables, {dim: values for dim, values in coordinates.items() if dim in dims}


def _measure_tasks(
    measurer: "CheckpointMeasurer",
    measured_tasks: list[int],
    progress: Callable[[list[int]], Iterable[int]],
    saved_tasks: TaskStore | None,
) -> list[dict[str, np.ndarray]]:
    """Measure every task that is not in the store yet."""
    results: list[dict[str, np.ndarray]] = []
    restored = 0
    for task in progress(measured_tasks):
        values = None if saved_tasks is None else saved_tasks.load(task)
        if values is not None:
            restored += 1
            results.append(values)
            continue
        if 0 < restored == len(results):
            log.info("resuming after task %d of %d", restored, len(measured_tasks))
        values = measurer.measure_task(task)
        _warn_of_diverged_runs(task, values["curvature_status"])
        if saved_tasks is not None:
            saved_tasks.save(task, values)
        results.append(values)
    return results


def _warn_of_diverged_runs(task: int, status: np.ndarray) -> None:
    """Log how many runs have diverged; `status` has shape ``(arm, seed, evaluation_point)``."""
    diverged = int((status == STATUS["diverged"]).any(axis=2).sum())
    if diverged:
        log.warning(
            "task %d: skipped %d runs, because their parameters are not finite", task, diverged
        )


class CheckpointMeasurer:
    """Computes the measures of an ensemble, one task at a time.

    Attributes:
        blocks: layers of each block of the network.
    """

    def __init__(
        self,
        checkpoints: CheckpointSource,
        setting: Setting,
        curvature: Curvature,
        data: xr.Dataset,
        memory: float,
        device: torch.device,
    ) -> None:
        """Build the network; arguments as in `measure`."""
        self._checkpoints = checkpoints
        self._setting = setting
        self._curvature = curvature
        self._data = data
        self._memory = memory
        self._device = device
        # In eval mode, the statistics of batch norm are constants.
        self._network = architecture.build_for(setting, data).double().eval().to(device)
        self._loss = losses.LOSSES[shift.build_shift(setting.problem).LOSS].loss
        self._checked_operators: set[str] = set()
        self._task_data = functools.lru_cache(maxsize=2)(self._read_task_data)
        self.blocks = blocks_of(self._network)

    def measure_task(self, task: int) -> dict[str, np.ndarray]:
        """Compute all measures of a task, shapes ``(arm, seed, …)``.

        Only the data of some seeds are in memory together.
        """
        arms = len(self._checkpoints.arms)
        rows = self._checkpoints.at(task).to(self._device).unflatten(0, (arms, -1))
        seeds = torch.tensor(self._checkpoints.seeds)
        chunk = self._seeds_at_once()
        results = [
            self._measure_seeds(task, seeds_of_chunk.tolist(), rows_of_chunk)
            for seeds_of_chunk, rows_of_chunk in zip(
                seeds.split(chunk), rows.split(chunk, dim=1), strict=True
            )
        ]
        measures = {
            name: np.concatenate([result[name] for result in results], axis=1)
            for name in results[0]
        }
        parameters = Parameters(rows.flatten(0, 1), self._checkpoints.shapes)
        of_weights = {
            "weight_norm": unit_measures.weight_norm(parameters, self.blocks),
            "isometry_deviation": unit_measures.isometry_deviation(
                self._network, parameters, self.blocks
            ),
        }
        for name, values in of_weights.items():
            measures[name] = values.unflatten(0, rows.shape[:2]).cpu().numpy()
        return measures

    def _seeds_at_once(self) -> int:
        """Count the seeds whose data and Gram matrices fit into `AT_ONCE` numbers.

        On a GPU they also fit into its free memory. On a CPU, results must not depend on that.
        """
        matrix_sizes = [
            operator.samples**2
            for name, operator in self._curvature.operators.items()
            if spectrum_variables.always_exact(name)
        ]
        pixels = self._setting.problem.samples * self._data["image"][0].size
        numbers: float = AT_ONCE
        if self._device.type != "cpu":
            numbers = min(AT_ONCE, self._memory // BYTES_PER_NUMBER)
        return max(1, int(numbers // max([1, pixels, *matrix_sizes])))

    def _measure_seeds(self, task: int, seeds: list[int], rows: Tensor) -> dict[str, np.ndarray]:
        """Compute the measures of some seeds at all evaluation points.

        Args:
            task: the next task.
            seeds: of the runs.
            rows: parameters, shape ``(arm, seed, parameter)``.

        Returns:
            By name, shapes ``(arm, seed, evaluation_point, …)``, and ``(arm, seed, block)`` for
            the displacement.
        """
        measures_by_point = {}
        for evaluation_point in self._curvature.evaluation_points:
            if evaluation_point == FRESH:
                measures = self._measure_fresh_networks(task, seeds, arms=len(rows))
            else:
                measures = self._measure_at(evaluation_point, task, seeds, rows)
            measures_by_point[evaluation_point] = measures

        without_point = {}
        if self._is_displacement_due(task):
            turned = self._measure_displacement(task, seeds, rows, measures_by_point)
            without_point[displacement.NAME] = turned.cpu().numpy()
        results = []
        for measures in measures_by_point.values():
            measures.pop(TOP_VECTORS, None)
            results.append({name: values.cpu().numpy() for name, values in measures.items()})
        return _stack_results(results) | without_point

    def _measure_fresh_networks(self, task: int, seeds: list[int], arms: int) -> dict[str, Tensor]:
        """Measure networks initialized from scratch, and repeat the measures for every arm."""
        network_config = self._setting.network
        drawn = [
            architecture.draw_initial(self._network, network_config, seed, task) for seed in seeds
        ]
        # Training starts from float32.
        rows = ensemble.rows(drawn).float().double().to(self._device)
        measures = self._measure_at(FRESH, task, seeds, rows[None])
        return {name: values.expand(arms, *values.shape[1:]) for name, values in measures.items()}

    def _measure_at(
        self, evaluation_point: str, task: int, seeds: list[int], rows: Tensor
    ) -> dict[str, Tensor]:
        """Compute the measures of some seeds at one evaluation point.

        Returns:
            By name, shapes ``(arm, seed, …)``; NaN before the first task and for diverged runs.
        """
        is_previous = evaluation_point == PREVIOUS
        has_data = task > 0 or not is_previous
        point = Point(
            task,
            data=self._task_data(max(task - is_previous, 0), tuple(seeds)),
            next_data=self._task_data(task, tuple(seeds)),
        )
        due = [
            name
            for name, operator in self._curvature.operators.items()
            if operator.is_due(task) and evaluation_point in operator.evaluation_points
        ]
        results = []
        for rows_of_arm in rows:
            alive, tensors = self._finite_parameters(rows_of_arm)
            inputs = point.data.inputs
            watch = unit_measures.hidden_units(self._network, tensors, inputs)
            measures = unit_measures.unit_measures(watch, inputs.shape[1], self.blocks)
            del watch  # frees the memory before the gradients are computed
            measures |= self._measure_gradients(point.data, tensors)
            measures |= self._measure_operators(due, point, seeds, tensors)
            results.append(_mask(measures, alive, has_data))
        return _stack_tensors(results)

    def _finite_parameters(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Replace the parameters of diverged runs by zeros.

        Args:
            rows: parameters, shape ``(run, parameter)``.

        Returns:
            Whether the parameters of a run are finite, shape ``(run,)``, and the tensors by name.
        """
        alive = rows.isfinite().all(dim=-1)
        finite_rows = rows.where(alive[:, None], 0)
        return alive, Parameters(finite_rows, self._checkpoints.shapes).tensors

    def _measure_gradients(self, data: TaskData, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the measures of gradients on all samples, shapes ``(run, block)``."""
        if is_batchable(self._network):
            return self._gradient_measures(data, tensors)
        results = []
        for run in range(len(data.inputs)):
            self._load_run(tensors, run)
            results.append(self._gradient_measures(data.of_run(run)))
        return _stack_tensors(results)

    def _gradient_measures(
        self, data: TaskData, tensors: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the measures of gradients, shapes ``(*run, block)``.

        Args:
            data: of all runs with `tensors`, else of one run.
            tensors: parameters of several runs, or None for those of the network.
        """
        batch = BatchLoss(self._network, *data, self._loss, tensors)
        return gradient_measures.gradient_measures(batch, self.blocks)

    def _load_run(self, tensors: Mapping[str, Tensor], run: int) -> None:
        """Load the parameters of one run into the network."""
        self._network.load_state_dict({name: tensor[run] for name, tensor in tensors.items()})

    def _measure_operators(
        self, names: Sequence[str], point: Point, seeds: Sequence[int], tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the variables of some operators.

        The last bits of an estimate depend on the runs in the same batch. So runs are measured one
        by one where there may be an estimate. This takes no longer.

        Returns:
            By name, shapes ``(run, block, …)``.
        """
        together = []
        if is_batchable(self._network):
            together = [name for name in names if spectrum_variables.always_exact(name)]
        one_by_one = [name for name in names if name not in together]
        measures: dict[str, Tensor] = {}
        for name in together:
            measures |= self._measure_operator(name, point, seeds[0], tensors)
        if one_by_one:
            measures |= self._measure_one_by_one(one_by_one, point, seeds, tensors)
        return measures

    def _measure_one_by_one(
        self, names: Sequence[str], point: Point, seeds: Sequence[int], tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the variables of some operators, one run after another."""
        results = []
        for run, seed in enumerate(seeds):
            self._load_run(tensors, run)
            result: dict[str, Tensor] = {}
            for name in names:
                result |= self._measure_operator(name, point.of_run(run), seed)
            results.append(result)
        return _stack_tensors(results)

    def _measure_operator(
        self, name: str, point: Point, seed: int, tensors: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the variables of one operator.

        Args:
            name: of the operator.
            point: data of all runs with `tensors`, else of one run.
            seed: of the probes of an estimate.
            tensors: parameters of several runs, or None for those of the network.

        Returns:
            By name, shapes ``(*run, block, …)``.
        """
        how = self._curvature.operators[name]
        estimated = spectrum_variables.may_be_estimated(name, how)
        always_exact = spectrum_variables.always_exact(name)
        # An operator is checked once, which costs a few forward and backward passes.
        is_new = name not in self._checked_operators
        operator = self._operator(name, point.data, tensors, check=is_new)
        spectra = operator.spectra(
            self._blocks_of_kinds(how.blocks),
            exact_up_to=sys.maxsize if always_exact else how.exact_up_to,
            estimate=Quadrature(how.steps, how.probes, how.probe_block) if estimated else None,
            starts=lambda block, vectors, d: spectrum_variables.probes(
                seed, point.task, block, vectors, d
            ),
            gradient=self._operator(name, point.next_data, tensors).gradient(),
            top=self._curvature.top,
            memory=self._memory,
        )
        self._checked_operators.add(name)
        variables = spectrum_variables.block_variables(
            spectra, self.blocks, self._curvature.levels, estimated
        )
        if name == displacement.OPERATOR and self._is_displacement_due(point.task):
            variables["top_vectors"] = self._top_vectors(spectra)
        return {f"{name}_{variable}": values for variable, values in variables.items()}

    def _top_vectors(self, spectra: Mapping[str, Spectrum]) -> Tensor:
        """Stack the top eigenvectors of the blocks' Gram matrices.

        Returns:
            Shape ``(*run, block, row, top)``; NaN for a block without a spectrum.
        """
        by_block = {block: cast(Tensor, one.top_vectors) for block, one in spectra.items()}
        first = next(iter(by_block.values()))
        missing = torch.full_like(first, torch.nan)
        vectors = [by_block.get(block, missing) for block in self.blocks]
        return torch.stack(vectors, dim=first.ndim - 2)

    def _is_displacement_due(self, task: int) -> bool:
        """Tell whether the Fisher's spectra on the data of both tasks are measured at a task."""
        is_measured = displacement.is_measured(self._curvature)
        return is_measured and self._curvature.operators[displacement.OPERATOR].is_due(task)

    def _measure_displacement(
        self,
        task: int,
        seeds: Sequence[int],
        rows: Tensor,
        measures: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        """Compute how far the top eigenvectors of the Fisher turn when the task changes.

        Args:
            task: the next task.
            seeds: of the runs.
            rows: parameters, shape ``(arm, seed, parameter)``.
            measures: by evaluation point and name, with the Fisher's eigenvalues and eigenvectors.

        Returns:
            Shape ``(arm, seed, block)``; NaN before the first task, for diverged runs and for
            blocks without a spectrum.
        """
        samples = self._curvature.operators[displacement.OPERATOR].samples
        data_of_tasks = [
            self._task_data(task_of_data, tuple(seeds)).first(samples)
            for task_of_data in (max(task - 1, 0), task)
        ]
        displacements = []
        for arm, rows_of_arm in enumerate(rows):
            _, tensors = self._finite_parameters(rows_of_arm)
            eigenvectors = [
                TopEigenvectors(
                    measures[point][f"{displacement.OPERATOR}_eigenvalue"][arm],
                    measures[point][TOP_VECTORS][arm],
                )
                for point in displacement.POINTS
            ]
            displacements.append(self._displacements_of_arm(data_of_tasks, tensors, eigenvectors))
        return torch.stack(displacements)

    def _displacements_of_arm(
        self,
        data_of_tasks: Sequence[TaskData],
        tensors: dict[str, Tensor],
        eigenvectors: Sequence[TopEigenvectors],
    ) -> Tensor:
        """Compute the displacement of each run and block, shape ``(run, block)``.

        Args:
            data_of_tasks: samples of the previous and of the next task.
            tensors: parameters by name, shapes ``(run, …)``.
            eigenvectors: on the data of both tasks, shapes ``(run, block, …)``.
        """
        kinds = self._curvature.operators[displacement.OPERATOR].blocks
        blocks = {
            block: layers if block in self._blocks_of_kinds(kinds) else []
            for block, layers in self.blocks.items()
        }
        if is_batchable(self._network):
            grams = [self._gram_matrices(data, tensors) for data in data_of_tasks]
            return displacement.of_blocks(grams, eigenvectors, blocks, self._curvature.top)
        results = []
        for run in range(len(data_of_tasks[0].inputs)):
            self._load_run(tensors, run)
            grams = [self._gram_matrices(data.of_run(run)) for data in data_of_tasks]
            of_run = [one.of_run(run) for one in eigenvectors]
            results.append(displacement.of_blocks(grams, of_run, blocks, self._curvature.top))
        return torch.stack(results)

    def _gram_matrices(
        self, data: TaskData, tensors: dict[str, Tensor] | None = None
    ) -> GramMatrices:
        """Build the Gram matrices of the Fisher."""
        return GramMatrices(loss_gradients, BatchLoss(self._network, *data, self._loss, tensors))

    def _operator(
        self,
        name: str,
        data: TaskData,
        tensors: dict[str, Tensor] | None,
        *,
        check: bool = False,
    ) -> Operator:
        """Build an operator on the first samples of a task."""
        samples = self._curvature.operators[name].samples
        if tensors is None:
            inputs, targets = data.inputs[:samples], data.targets[:samples]
        else:
            inputs, targets = data.first(samples)
        operator: Operator = registry.load("operators", name).Operator(
            self._network, inputs, targets, self._loss, tensors, check=check
        )
        return operator

    def _blocks_of_kinds(self, kinds: Sequence[str]) -> dict[str, list[str]]:
        """Select blocks by kind: ``layers``, ``last_two``, ``all``."""
        selected = {}
        for block, layers in self.blocks.items():
            kind = block if block in (LAST_TWO, ALL) else "layers"
            if kind in kinds:
                selected[block] = layers
        return selected

    def _read_task_data(self, task: int, seeds: tuple[int, ...]) -> TaskData:
        """Read the training samples of a task for some seeds."""
        problem = self._setting.problem
        inputs, targets = tasks.build_task_of_seeds(problem, self._data, list(seeds), task)
        return TaskData(
            inputs[:, : problem.samples].double().to(self._device),
            targets[:, : problem.samples].to(self._device),
        )


def _mask(measures: dict[str, Tensor], alive: Tensor, has_data: bool) -> dict[str, Tensor]:
    """Replace the measures of diverged runs, or of all runs without data, by NaN; add a status.

    Args:
        measures: by name, shapes ``(run, …)``.
        alive: whether the parameters of a run are finite, shape ``(run,)``.
        has_data: whether there is a task to measure on.
    """
    is_measured = alive & has_data
    masked = {
        name: values.detach().where(is_measured.view(-1, *[1] * (values.ndim - 1)), torch.nan)
        for name, values in measures.items()
    }
    code = STATUS["measured" if has_data else "no_data"]
    status = torch.full_like(alive, code, dtype=torch.int8)
    return masked | {"curvature_status": status.where(alive, STATUS["diverged"])}


def _stack_tensors(results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack tensors of the same names along a new first dim."""
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def _stack_results(results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stack the arrays ``(arm, seed, …)`` of evaluation points or of tasks along a third dim.

    The last dim is padded to the largest. A result that lacks a name has NaN.
    """
    names = dict.fromkeys(name for result in results for name in result)
    stacked = {}
    for name in names:
        arrays = [result[name] for result in results if name in result]
        width = max(array.shape[-1] for array in arrays)
        missing = arrays[0]
        if missing.dtype.kind == "f":
            missing = np.full_like(missing, np.nan)
        padded = [_pad(result.get(name, missing), width) for result in results]
        stacked[name] = np.stack(padded, axis=2)
    return stacked


def _pad(array: np.ndarray, width: int) -> np.ndarray:
    """Append NaN to the last dim, up to a width."""
    missing = width - array.shape[-1]
    if not missing:
        return array
    padding = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return np.pad(array, padding, constant_values=np.nan)
