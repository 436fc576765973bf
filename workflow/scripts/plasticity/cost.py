"""What a study will cost, before it runs: counted where it can be counted, timed on this machine where not."""

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
from plasticity.models import architecture
from plasticity.models.ensemble import rows
from plasticity.training import memory
from plasticity.training.trainer import Trainer

STEPS = 64  # that are timed


class Cost(NamedTuple):
    """Of one method in one setting.

    Attributes:
        jobs, runs: how many to train, in all; as many jobs measure them.
        steps: of one run, in all its tasks.
        checkpoints: how many of one run.
        parameters: of one run.
        disk: bytes of checkpoints, and of measures before compression, which lie there once an ensemble and once a setting; while a job
            trains, its checkpoints lie there twice.
        memory: bytes of the largest training job, beside what the process takes anyway.
        training, measuring: hours of one core of this machine, or of its GPU, for all jobs.
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


@dataclasses.dataclass
class Standing:
    """Two runs as they begin, at the first task twice: what `measures.measure` asks of checkpoints."""

    parameters: Tensor
    shapes: dict[str, tuple[int, ...]]
    arms: list[str] = dataclasses.field(default_factory=lambda: ["none"])
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1])
    tasks: list[int] = dataclasses.field(default_factory=lambda: [0, 0])

    def at(self, task: int) -> Tensor:
        """Their parameters, shape ``(run, parameter)``."""
        return self.parameters


class Measuring(NamedTuple):
    """What it takes to measure one checkpoint of one run: seconds, a mean over the tasks, and bytes before compression."""

    seconds: float
    disk: float


def measuring(setting: Setting, data: xr.Dataset, curvature: Curvature) -> Measuring:
    """Measure two runs of a setting as they begin, the second time: at the first, libraries are loaded and operators checked.

    Raises:
        StudyError: a dataset that cannot give what the problem asks for.
    """
    network = architecture.fitting(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    begun = Standing(
        rows([architecture.initial(network, setting.network, seed) for seed in (0, 1)]), shapes
    )

    def taken(of_operators: Mapping[str, Spectra]) -> tuple[float, dict[str, np.ndarray]]:
        """How long one run takes at a task with some of the operators, and the numbers of both runs."""
        took = 0.0

        def timed(places: Iterable[int]) -> Iterator[int]:
            nonlocal took
            for place in places:
                start = time.perf_counter()
                yield place
                took = time.perf_counter() - start

        variables, _ = measure.measure(
            begun, setting, dataclasses.replace(curvature, operators=of_operators), data, timed
        )
        return took / len(begun.seeds), variables

    without, variables = taken({})
    seconds = without
    for every, of_operators in _by_frequency(curvature).items():
        with_them, found = taken(of_operators)
        seconds += (
            max(0.0, with_them - without) * curvature.every / every
        )  # of the tasks that are measured
        variables |= found
    described = measure.table(curvature)
    ranks = max(
        (array.shape[-1] for name, array in variables.items() if "rank" in described[name].dims),
        default=0,
    )
    disk = 0  # where an operator was not asked for, NaN lies there
    for name, array in variables.items():
        numbers = (
            array.size // array.shape[-1] * ranks if "rank" in described[name].dims else array.size
        )
        disk += numbers * np.dtype(described[name].dtype).itemsize
    return Measuring(seconds, disk / (len(begun.seeds) * len(begun.tasks)))


def _by_frequency(curvature: Curvature) -> dict[int, dict[str, Spectra]]:
    """The operators that are taken at every so many tasks."""
    found: dict[int, dict[str, Spectra]] = {}
    for name, how in curvature.operators.items():
        found.setdefault(how.every, {})[name] = how
    return found


def cost(
    setting: Setting,
    method: str,
    arms: Sequence[Mapping[str, float]],
    blocks: Sequence[Sequence[int]],
    data: xr.Dataset,
    training: Training,
    curvature: Curvature,
    measured: Measuring,
) -> Cost:
    """Count and time one method in one setting; its largest job trains for an epoch, or for the first `STEPS` steps of one.

    Args:
        setting: problem, network and optimizer.
        method: its name.
        arms: its choices of hyper-parameters.
        blocks: the seeds of each job.
        data: the prepared dataset.
        training: precision, and what is recorded.
        curvature: when it is measured.
        measured: what that takes.

    Raises:
        StudyError: a dataset that cannot give what the problem asks for.
    """
    problem = setting.problem
    if problem.separable:
        tasks.check_separable(problem, data, blocks[0][0])
    runs, largest_block = len(arms) * sum(map(len, blocks)), max(blocks, key=len)
    largest = list(itertools.product(arms, largest_block))
    parameters = sum(tensor.numel() for tensor in architecture.fitting(setting, data).parameters())
    checkpoints = len(range(0, problem.tasks, training.checkpoint_every))
    measurements = runs * len(range(0, problem.tasks, curvature.every))
    # fewer samples than the task has, so that steps and the look at all samples after them stay in proportion
    samples = min(problem.samples, STEPS * problem.batch)
    steps = min(problem.steps, samples // problem.batch)
    short = dataclasses.replace(
        problem, samples=samples, test_samples=0, tasks=2, steps_per_task=steps
    )
    trained = Trainer(dataclasses.replace(setting, problem=short), method, largest, data, training)
    trained.on_task_start()
    trained.learn()  # the first time, libraries choose their kernels
    trained.on_task_start()
    start = time.perf_counter()
    trained.learn()
    seconds = (
        (time.perf_counter() - start) * problem.tasks * problem.steps / steps * runs / len(largest)
    )
    return Cost(
        jobs=len(blocks),
        runs=runs,
        steps=problem.tasks * problem.steps,
        checkpoints=checkpoints,
        parameters=parameters,
        disk=4 * parameters * checkpoints * runs + round(2 * measured.disk * measurements),
        memory=len(largest) * memory.per_run(setting, data),
        training=seconds / 3600,
        measuring=measured.seconds * measurements / 3600,
    )


def unmeasured(cost: Cost) -> Cost:
    """The cost of runs that tune: no checkpoints, no curvature."""
    return cost._replace(checkpoints=0, disk=0, measuring=0.0)


def table(costs: Mapping[tuple[str, str], Cost]) -> str:
    """A line for each setting and method, and their sum."""
    setting_width, method_width = (
        max(map(len, labels)) for labels in zip(*costs, ("setting", "method"), strict=True)
    )
    heads = (
        "jobs",
        "runs",
        "steps",
        "checkpoints",
        "parameters",
        "disk",
        "a job",
        "training",
        "curvature",
    )
    rows: list[tuple[str, str, Iterable[object]]] = [("setting", "method", heads)]
    for (setting, method), cost in costs.items():
        counts = (
            cost.jobs,
            cost.runs,
            f"{cost.steps:,}",
            f"{cost.checkpoints:,}",
            f"{cost.parameters:,}",
        )
        spent = (
            _size(cost.disk),
            _size(cost.memory),
            _duration(cost.training),
            _duration(cost.measuring),
        )
        rows.append((setting, method, (*counts, *spent)))
    jobs, runs, disk, training, measuring = (
        sum(getattr(cost, name) for cost in costs.values())
        for name in ("jobs", "runs", "disk", "training", "measuring")
    )
    all_of_it = (jobs, runs, "", "", "", _size(disk), "", _duration(training), _duration(measuring))
    rows.append(("all", "", all_of_it))
    return "\n".join(
        f"{setting:{setting_width}}  {method:{method_width}}"
        + "".join(f"{cell!s:>12}" for cell in cells)
        for setting, method, cells in rows
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
