"""What a study will cost, before it runs: counted where it can be counted, timed on this machine where not."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from plasticity import measures, memory, networks, tasks
from plasticity.settings import Curvature, Setting, Training
from plasticity.training import Members


class Cost(NamedTuple):
    """Of one method in one setting.

    Attributes:
        jobs, members: how many to train, in all; as many jobs measure them.
        steps: of one member, in all its tasks.
        checkpoints: how many of one member.
        parameters: of one member.
        disk: bytes of checkpoints, and of measures before compression, which lie there once a cohort and once a setting; while a job
            trains, its checkpoints lie there twice.
        memory: bytes of the largest training job, beside what the process takes anyway.
        training, measuring: hours of one core of this machine, or of its GPU, for all jobs.
    """

    jobs: int
    members: int
    steps: int
    checkpoints: int
    parameters: int
    disk: int
    memory: int
    training: float
    measuring: float


@dataclasses.dataclass
class Standing:
    """Members where they stand, as one checkpoint of one arm."""

    arms: list[str]
    seeds: list[int]
    tasks: list[int]
    shapes: dict[str, tuple[int, ...]]
    parameters: Tensor

    def at(self, task: int) -> Tensor:
        """Their parameters, whatever the task; shape ``(member, parameter)``."""
        return self.parameters


def cost(
    setting: Setting,
    method: str,
    arms: Sequence[Mapping[str, float]],
    blocks: Sequence[Sequence[int]],
    data: xr.Dataset,
    training: Training,
    curvature: Curvature,
) -> Cost:
    """Count and time one method in one setting: its largest job trains for one epoch, and one arm of two seeds is measured once.

    Args:
        setting: problem, network and optimizer.
        method: its name.
        arms: its choices of hyper-parameters.
        blocks: the seeds of each job.
        data: the prepared dataset.
        training: precision, and what is recorded.
        curvature: what is measured, and when.

    Raises:
        StudyError: a dataset that cannot give what the problem asks for.
    """
    problem = setting.problem
    if problem.separable:
        tasks.refuse_inseparable(problem, data, blocks[0][0])
    members = len(arms) * sum(map(len, blocks))
    largest_block = max(blocks, key=len)
    largest = list(itertools.product(arms, largest_block))
    parameters = sum(tensor.numel() for tensor in networks.fitting(setting, data).parameters())
    checkpoints = len(range(0, problem.tasks, training.checkpoint_every))
    steps = min(problem.steps, problem.steps_per_epoch)
    short = dataclasses.replace(setting, problem=dataclasses.replace(problem, steps_per_task=steps, tasks=2))
    trained = Members(short, method, largest, data, training)
    trained.learn()  # the first time, libraries choose their kernels
    start = time.perf_counter()
    trained.learn()
    epoch = time.perf_counter() - start

    few = trained.seeds[:2]
    standing = Standing([method], few, [0], trained.shapes, trained.parameters.flat.detach().double().cpu()[: len(few)])
    start = time.perf_counter()
    variables, _ = measures.measure(standing, setting, curvature, data)
    measured = len(range(0, problem.tasks, curvature.every)) * members / len(few)
    kept = sum(array.size * np.dtype(measures.TABLE[name].dtype).itemsize for name, array in variables.items())
    return Cost(
        jobs=len(blocks),
        members=members,
        steps=problem.tasks * problem.steps,
        checkpoints=checkpoints,
        parameters=parameters,
        disk=4 * parameters * checkpoints * members + round(2 * kept * measured),
        memory=len(largest) * memory.per_member(setting, data),
        training=epoch * problem.tasks * problem.steps / steps * members / len(largest) / 3600,
        measuring=(time.perf_counter() - start) * measured / 3600,
    )


def table(costs: Mapping[tuple[str, str], Cost]) -> str:
    """A line for each setting and method, and their sum."""
    longest = max(len(setting) for setting, _ in costs)
    heads = ("jobs", "members", "steps", "checkpoints", "parameters", "disk", "a job", "training", "curvature")
    lines = [_line(f"{'setting':{longest}}", "method", heads)]
    for (setting, method), cost in costs.items():
        counts = (cost.jobs, cost.members, f"{cost.steps:,}", f"{cost.checkpoints:,}", f"{cost.parameters:,}")
        spent = (_size(cost.disk), _size(cost.memory), _duration(cost.training), _duration(cost.measuring))
        lines.append(_line(f"{setting:{longest}}", method, (*counts, *spent)))
    jobs, members, disk, training, measuring = (
        sum(getattr(cost, name) for cost in costs.values()) for name in ("jobs", "members", "disk", "training", "measuring")
    )
    all_of_it = (jobs, members, "", "", "", _size(disk), "", _duration(training), _duration(measuring))
    return "\n".join([*lines, _line(f"{'all':{longest}}", "", all_of_it)])


def _line(setting: str, method: str, cells: Iterable[object]) -> str:
    return f"{setting}  {method:12}" + "".join(f"{cell!s:>12}" for cell in cells)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
