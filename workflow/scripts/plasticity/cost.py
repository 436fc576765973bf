"""Estimate what a study costs before it runs.

The estimate has three steps: count jobs, steps and checkpoints; time a training step on this
machine; time the measures of a checkpoint on this machine. The cost of intervention experiments
follows from these times.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from plasticity.config.models import Curvature, Setting, Spectra, Training
from plasticity.curvature import measure
from plasticity.data import tasks
from plasticity.interventions.variables import OF_COPIES, measures_of_copies, outcomes_of_copies
from plasticity.models import architecture
from plasticity.models.ensemble import rows
from plasticity.training import memory
from plasticity.training.trainer import Trainer

STEPS = 64  # training steps that are timed, at most
SECONDS_PER_HOUR = 3600
BYTES_PER_PARAMETER = 4  # float32
TIMED = 4  # checkpoints that are measured: of two runs, at two tasks

Arm = Mapping[str, float]
Run = tuple[Arm, int]  # an arm and a seed


class Cost(NamedTuple):
    """Cost of one method in one setting.

    Attributes:
        jobs: number of training jobs. As many jobs measure their checkpoints, and as many treat
            copies of them if the method is treated.
        runs: number of runs in all jobs.
        steps: of one run, in all its tasks.
        checkpoints: of one run.
        parameters: of one run.
        disk: bytes of the checkpoints and measures, and of the same for copies. Measures are
            counted twice, for the ensemble and for the setting, and before compression. While a job
            trains, its checkpoints take twice their space.
        memory: bytes of the largest training job, in addition to those of any Python process.
        training: hours of one core of this machine, or of its GPU, for all jobs.
        measuring: hours of one core of this machine for all jobs.
        intervening: the same, for copies of checkpoints: to measure them and to train each for one
            task.
    """

    jobs: int
    runs: int
    steps: int
    checkpoints: int
    parameters: int
    disk: int
    memory: int
    training: float
    measuring: float
    intervening: float = 0.0


class CheckpointCost(NamedTuple):
    """Cost of measuring one checkpoint of one run, or one copy of it.

    Attributes:
        seconds: mean over the tasks.
        disk: bytes of the measures before compression; for a copy, of its outcomes too.
    """

    seconds: float
    disk: float


class Experiment(NamedTuple):
    """What an intervention experiment does with each run of one method in one setting.

    Attributes:
        copies: of each treated checkpoint, with the one that is not changed.
        tasks: number of treated checkpoints.
    """

    copies: int
    tasks: int


class Counts(NamedTuple):
    """What can be counted without running anything.

    Attributes:
        runs: number of runs in all jobs.
        largest_job: the runs of the job with most runs.
        checkpoints: of one run.
        measurements: checkpoints of all runs that are measured.
        parameters: of one run.
    """

    runs: int
    largest_job: list[Run]
    checkpoints: int
    measurements: int
    parameters: int


def cost(
    setting: Setting,
    method: str,
    arms: Sequence[Arm],
    blocks: Sequence[Sequence[int]],
    data: xr.Dataset,
    training: Training,
    curvature: Curvature,
    checkpoint: CheckpointCost,
) -> Cost:
    """Estimate the cost of one method in one setting.

    Args:
        setting: problem, network and optimizer.
        method: name of the method.
        arms: of the method.
        blocks: seeds of each job.
        data: the prepared dataset.
        training: precision, and which outcomes are recorded.
        curvature: which checkpoints are measured.
        checkpoint: from `time_checkpoint`.

    Raises:
        StudyError: the dataset cannot give what the problem asks for.
    """
    if setting.problem.separable:
        tasks.check_separable(setting.problem, data, blocks[0][0])
    counts = count(setting, arms, blocks, data, training, curvature)
    steps = setting.problem.tasks * setting.problem.steps
    seconds_per_step = time_step(setting, method, counts.largest_job, data, training)
    training_seconds = seconds_per_step * steps * counts.runs / len(counts.largest_job)
    bytes_of_checkpoints = (
        BYTES_PER_PARAMETER * counts.parameters * counts.checkpoints * counts.runs
    )
    bytes_of_measures = round(2 * checkpoint.disk * counts.measurements)
    return Cost(
        jobs=len(blocks),
        runs=counts.runs,
        steps=steps,
        checkpoints=counts.checkpoints,
        parameters=counts.parameters,
        disk=bytes_of_checkpoints + bytes_of_measures,
        memory=len(counts.largest_job) * memory.per_run(setting, data),
        training=training_seconds / SECONDS_PER_HOUR,
        measuring=checkpoint.seconds * counts.measurements / SECONDS_PER_HOUR,
    )


def count(
    setting: Setting,
    arms: Sequence[Arm],
    blocks: Sequence[Sequence[int]],
    data: xr.Dataset,
    training: Training,
    curvature: Curvature,
) -> Counts:
    """Count runs, checkpoints and parameters; the arguments are those of `cost`."""
    all_tasks = setting.problem.tasks
    runs = len(arms) * sum(len(block) for block in blocks)
    largest_block = max(blocks, key=lambda block: len(block))
    network = architecture.build_for(setting, data)
    return Counts(
        runs=runs,
        largest_job=list(itertools.product(arms, largest_block)),
        checkpoints=len(range(0, all_tasks, training.checkpoint_every)),
        measurements=runs * len(range(0, all_tasks, curvature.every)),
        parameters=sum(tensor.numel() for tensor in network.parameters()),
    )


def with_interventions(
    cost: Cost,
    experiment: Experiment,
    copy: CheckpointCost,
    setting: Setting,
    method: str,
    arm: Arm,
    data: xr.Dataset,
) -> Cost:
    """Add an intervention experiment to the cost of the runs whose checkpoints are treated.

    Args:
        cost: of the runs.
        experiment: number of copies.
        copy: from `time_copy`.
        setting: problem, network and optimizer.
        method: name of the method.
        arm: of the method.
        data: the prepared dataset.
    """
    states = cost.runs * experiment.tasks
    copies = states * experiment.copies
    training_of_task = cost.training / (cost.runs * setting.problem.tasks)
    bytes_of_states = states * count_state_bytes(setting, method, arm, data)
    return cost._replace(
        disk=cost.disk + bytes_of_states + round(2 * copy.disk * copies),
        intervening=copies * (training_of_task + copy.seconds / SECONDS_PER_HOUR),
    )


def count_state_bytes(setting: Setting, method: str, arm: Arm, data: xr.Dataset) -> int:
    """Count the bytes of what a run needs to continue at a task boundary.

    This is its parameters, and the state of the optimizer and of the method.
    """
    trainer = Trainer(setting, method, [(arm, 0)], data)
    return sum(tensor.nbytes for tensor in trainer.boundary_tensors().values())


def time_step(
    setting: Setting, method: str, runs: Sequence[Run], data: xr.Dataset, training: Training
) -> float:
    """Train an ensemble for an epoch, or the first `STEPS` steps of one, and time it.

    Returns:
        Seconds per step of all runs together. They include a step's share of the evaluation on all
        samples at the end of a task.
    """
    problem = setting.problem
    # fewer samples than in a task, so that steps and the evaluation after them stay in proportion
    samples = min(problem.samples, STEPS * problem.batch)
    steps = min(problem.steps, samples // problem.batch)
    short_problem = dataclasses.replace(
        problem, samples=samples, test_samples=0, tasks=2, steps_per_task=steps
    )
    short_setting = dataclasses.replace(setting, problem=short_problem)
    ensemble = Trainer(short_setting, method, runs, data, training)
    ensemble.on_task_start()
    ensemble.learn()  # libraries choose their kernels in the first task, which is not timed
    ensemble.on_task_start()
    start = time.perf_counter()
    ensemble.learn()
    return (time.perf_counter() - start) / steps


def time_checkpoint(setting: Setting, data: xr.Dataset, curvature: Curvature) -> CheckpointCost:
    """Measure checkpoints of two untrained runs, and time it.

    Raises:
        StudyError: the dataset cannot give what the problem asks for.
    """
    seconds, measures = _time_measures(setting, data, curvature)
    return CheckpointCost(seconds, _stored_bytes(measures, curvature) / TIMED)


def time_copy(setting: Setting, data: xr.Dataset, curvature: Curvature) -> CheckpointCost:
    """Measure copies of checkpoints of two untrained runs, and time it.

    Spectra and learning curves of copies are not stored.

    Args:
        setting: problem, network and optimizer.
        data: the prepared dataset.
        curvature: what is measured on the copies.

    Raises:
        StudyError: the dataset cannot give what the problem asks for.
    """
    seconds, measures = _time_measures(setting, data, curvature)
    stored = {name: measures[name] for name in measures_of_copies(curvature)}
    of_copies = OF_COPIES | outcomes_of_copies(setting.problem)
    bytes_of_outcomes = sum(np.dtype(variable.dtype).itemsize for variable in of_copies.values())
    return CheckpointCost(seconds, _stored_bytes(stored, curvature) / TIMED + bytes_of_outcomes)


def _time_measures(
    setting: Setting, data: xr.Dataset, curvature: Curvature
) -> tuple[float, dict[str, np.ndarray]]:
    """Measure checkpoints of two untrained runs.

    Operators may be measured at different tasks. So each group of operators with the same tasks is
    timed by itself, and counts in proportion to the measured tasks.

    Returns:
        Seconds per checkpoint, mean over the tasks, and the measures of `TIMED` checkpoints.
    """
    checkpoints = _create_checkpoints(setting, data)

    def measure_with(operators: Mapping[str, Spectra]) -> tuple[float, dict[str, np.ndarray]]:
        """Return the seconds of one run at the second task, and the measures."""
        timer = _TaskTimer()
        at_all = {
            name: dataclasses.replace(spectra, every=1, tasks=None)
            for name, spectra in operators.items()
        }
        part = dataclasses.replace(curvature, operators=at_all)
        variables, _ = measure.measure(checkpoints, setting, part, data, timer)
        return timer.seconds / len(checkpoints.seeds), variables

    seconds_without_operators, variables = measure_with({})
    seconds = seconds_without_operators
    measured_tasks = range(0, setting.problem.tasks, curvature.every)
    for due_tasks, operators in _group_by_tasks(curvature, measured_tasks).items():
        seconds_with_operators, measures = measure_with(operators)
        extra = max(0.0, seconds_with_operators - seconds_without_operators)
        seconds += extra * len(due_tasks) / len(measured_tasks)
        variables |= measures
    return seconds, variables


@dataclasses.dataclass
class _UntrainedCheckpoints:
    """Checkpoints of two untrained runs, in the form that `measure.measure` reads.

    The first task is listed twice. Libraries are loaded and operators checked in the first
    measurement, so only the second is timed.
    """

    parameters: Tensor
    shapes: dict[str, tuple[int, ...]]
    arms: list[str] = dataclasses.field(default_factory=lambda: ["none"])
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1])
    tasks: list[int] = dataclasses.field(default_factory=lambda: [0, 0])

    def at(self, task: int) -> Tensor:
        """Return the parameters, shape ``(run, parameter)``."""
        return self.parameters


def _create_checkpoints(setting: Setting, data: xr.Dataset) -> _UntrainedCheckpoints:
    """Initialise the networks of two runs."""
    network = architecture.build_for(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    networks = [architecture.draw_initial(network, setting.network, seed) for seed in (0, 1)]
    return _UntrainedCheckpoints(rows(networks), shapes)


class _TaskTimer:
    """Wrapper for a loop over tasks; `seconds` is the duration of the last one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, loop: Iterable[int]) -> Iterator[int]:
        for task in loop:
            start = time.perf_counter()
            yield task
            self.seconds = time.perf_counter() - start


def _group_by_tasks(
    curvature: Curvature, measured_tasks: Sequence[int]
) -> dict[tuple[int, ...], dict[str, Spectra]]:
    """Group the operators by the tasks at which they are measured."""
    groups: dict[tuple[int, ...], dict[str, Spectra]] = {}
    for name, spectra in curvature.operators.items():
        due_tasks = tuple(filter(spectra.is_due, measured_tasks))
        groups.setdefault(due_tasks, {})[name] = spectra
    return groups


def _stored_bytes(variables: Mapping[str, np.ndarray], curvature: Curvature) -> int:
    """Count the bytes of measures in a file, which pads all spectra to the longest with NaN."""
    table = measure.table(curvature)
    spectra = {name for name in variables if "rank" in table[name].dims}
    longest = max((variables[name].shape[-1] for name in spectra), default=0)
    total = 0
    for name, array in variables.items():
        numbers = array.size
        if name in spectra:
            numbers = array.size // array.shape[-1] * longest
        total += numbers * np.dtype(table[name].dtype).itemsize
    return total


def without_checkpoints(cost: Cost) -> Cost:
    """Return the cost of the same runs for tuning, which takes no checkpoints."""
    return cost._replace(checkpoints=0, disk=0, measuring=0.0, intervening=0.0)


HEADINGS = (
    "jobs",
    "runs",
    "steps",
    "checkpoints",
    "parameters",
    "disk",
    "a job",
    "training",
    "curvature",
    "intervene",
)


def table(costs: Mapping[tuple[str, str], Cost]) -> str:
    """Format costs as a table: a line for each setting and method, and their sum.

    The column ``a job`` is the memory of the largest job.
    """
    lines: list[tuple[str, str, Sequence[str]]] = [("setting", "method", HEADINGS)]
    lines += [(setting, method, _cells(cost)) for (setting, method), cost in costs.items()]
    lines.append(("all", "", _total_cells(costs.values())))
    setting_width = max(len(setting) for setting, _, _ in lines)
    method_width = max(len(method) for _, method, _ in lines)
    return "\n".join(
        f"{setting:{setting_width}}  {method:{method_width}}"
        + "".join(f"{cell:>12}" for cell in cells)
        for setting, method, cells in lines
    )


def _cells(cost: Cost) -> tuple[str, ...]:
    """Format a cost under the headings of the table."""
    return (
        str(cost.jobs),
        str(cost.runs),
        f"{cost.steps:,}",
        f"{cost.checkpoints:,}",
        f"{cost.parameters:,}",
        _format_bytes(cost.disk),
        _format_bytes(cost.memory),
        _format_hours(cost.training),
        _format_hours(cost.measuring),
        _format_hours(cost.intervening),
    )


def _total_cells(costs: Iterable[Cost]) -> tuple[str, ...]:
    """Format the sum of costs; what has no meaningful sum is empty."""
    total = Cost(*(sum(values) for values in zip(*costs, strict=True)))
    return (
        str(total.jobs),
        str(total.runs),
        "",
        "",
        "",
        _format_bytes(total.disk),
        "",
        _format_hours(total.training),
        _format_hours(total.measuring),
        _format_hours(total.intervening),
    )


def _format_bytes(count: int) -> str:
    """Format bytes in GB."""
    return f"{count / 1e9:.2f} GB"


def _format_hours(hours: float) -> str:
    """Format a duration in hours, or in minutes below an hour."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
