"""What training will cost, before it runs: counted where it can be counted, timed on this machine where not."""

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from plasticity import memory, networks
from plasticity.settings import Setting, Training
from plasticity.training import Members


class Cost(NamedTuple):
    """Of one method in one setting.

    Attributes:
        jobs, members: how many, in all.
        steps: of one member, in all its tasks.
        parameters: of one member.
        checkpoints: bytes on disk; while a job runs, its share lies there twice.
        memory: bytes of the largest job, beside what the process takes anyway.
        hours: of one core of this machine, or of its GPU, for all jobs.
    """

    jobs: int
    members: int
    steps: int
    parameters: int
    checkpoints: int
    memory: int
    hours: float


def cost(
    setting: Setting,
    method: str,
    arms: Sequence[Mapping[str, float]],
    blocks: Sequence[Sequence[int]],
    data: xr.Dataset,
    training: Training,
) -> Cost:
    """Count and time one method in one setting; its largest job trains for one epoch.

    Args:
        setting: problem, network and optimizer.
        method: its name.
        arms: its choices of hyper-parameters.
        blocks: the seeds of each job.
        data: the prepared dataset.
        training: precision, and what is recorded.
    """
    problem = setting.problem
    members = len(arms) * sum(map(len, blocks))
    largest_block = max(blocks, key=len)
    largest = list(itertools.product(arms, largest_block))
    parameters = sum(tensor.numel() for tensor in networks.fitting(setting, data).parameters())
    kept = len(range(0, problem.tasks, training.checkpoint_every))
    steps = min(problem.steps, problem.steps_per_epoch)
    short = dataclasses.replace(setting, problem=dataclasses.replace(problem, steps_per_task=steps, tasks=2))
    trained = Members(short, method, largest, data, training)
    trained.learn()  # the first time, libraries choose their kernels
    start = time.perf_counter()
    trained.learn()
    epochs = problem.tasks * problem.steps / steps * members / len(largest)
    return Cost(
        jobs=len(blocks),
        members=members,
        steps=problem.tasks * problem.steps,
        parameters=parameters,
        checkpoints=4 * parameters * kept * members,
        memory=len(largest) * memory.per_member(setting, data),
        hours=(time.perf_counter() - start) * epochs / 3600,
    )


def table(costs: Mapping[tuple[str, str], Cost]) -> str:
    """A line for each setting and method, and their sum."""
    longest = max(len(setting) for setting, _ in costs)
    head = f"{'setting':{longest}}  {'method':12}{'jobs':>6}{'members':>9}{'steps':>11}{'parameters':>12}"
    lines = [f"{head}{'checkpoints':>13}{'a job':>10}{'time':>10}"]
    for (setting, method), cost in costs.items():
        lines.append(
            f"{setting:{longest}}  {method:12}{cost.jobs:6}{cost.members:9}{cost.steps:11,}{cost.parameters:12,}"
            f"{cost.checkpoints / 1e9:10.2f} GB{cost.memory / 1e9:7.2f} GB{_duration(cost.hours):>10}"
        )
    jobs, members, checkpoints, hours = (
        sum(getattr(cost, name) for cost in costs.values()) for name in ("jobs", "members", "checkpoints", "hours")
    )
    lines.append(f"{'all':{longest}}  {'':12}{jobs:6}{members:9}{'':23}{checkpoints / 1e9:10.2f} GB{'':10}{_duration(hours):>10}")
    return "\n".join(lines)


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
