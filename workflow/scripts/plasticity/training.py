"""Continual training of a cohort: all members in lock-step, task after task.

The loop below is that of a single network; the first dim of every tensor is the member, arms outermost, seeds within.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity import networks, optimizers, registry, tasks
from plasticity.lockstep import Parameters, forward, rows
from plasticity.losses import cross_entropy, mistakes
from plasticity.methods import Intervention
from plasticity.settings import Setting


@dataclass
class Cohort:
    """Members with one setting and one method, and where they stand.

    Attributes:
        setting: problem, network and optimizer of all members.
        arms: a choice of the method's hyper-parameters each.
        seeds: a member for each arm and seed.
        data: the prepared dataset.
        method: name of the method.
        device: where it all lies.
        dtype: of parameters and inputs.
    """

    setting: Setting
    method: str
    arms: list[dict[str, float]]
    seeds: list[int]
    data: xr.Dataset
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.network = networks.fitting(self.setting.network, self.data)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.network.named_parameters()}
        self.parameters = Parameters(self.fresh(task=0), self.shapes)
        self.optimizer = optimizers.build(self.setting.optimizer, self.parameters.padded)
        self.intervention = self._intervention()
        self.intervention.begin(self.parameters)

    def fresh(self, task: int) -> Tensor:
        """Newly drawn initial parameters, shape ``(member, parameter)``; the same for every arm of a seed."""
        drawn = rows([networks.initial(self.network, self.setting.network, seed, task) for seed in self.seeds])
        return drawn.to(self.device, self.dtype).repeat(len(self.arms), 1)

    def _intervention(self) -> Intervention:
        hyper_parameters = {
            name: torch.tensor([arm[name] for arm in self.arms for _ in self.seeds], device=self.device, dtype=self.dtype)
            for name in self.arms[0]
        }
        intervention: Intervention = registry.load("methods", self.method).Method(**hyper_parameters)
        return intervention


def train(cohort: Cohort, save: Callable[[int, Tensor], None], progress: Callable[[range], Iterable[int]] = iter) -> dict[str, np.ndarray]:
    """Train a cohort through all tasks of its problem.

    Args:
        cohort: as newly built.
        save: called as ``save(task, parameters)`` at each task's start, after what the method changes at the switch, with
            the parameters of shape ``(arm, seed, parameter)``.
        progress: wraps the loop over tasks.

    Returns:
        Outcomes by name, shape ``(arm, seed, task)``. A member whose loss or parameters are no longer finite has status 1
        and NaN for that task; members do not mix, so the others' numbers are untouched.
    """
    problem, parameters = cohort.setting.problem, cohort.parameters
    outcomes: list[dict[str, Tensor]] = []
    before = torch.empty_like(parameters.padded)
    for task in progress(range(problem.tasks)):
        inputs, labels = (part.to(cohort.device) for part in tasks.stacked(problem, cohort.data, cohort.seeds, task))
        inputs = inputs.to(cohort.dtype)
        order = torch.from_numpy(np.stack([tasks.batches(problem, seed, task) for seed in cohort.seeds])).to(cohort.device)
        with torch.no_grad():
            cohort.intervention.switch(parameters, cohort.optimizer, cohort.fresh(task))
        save(task, parameters.flat.detach().unflatten(0, (len(cohort.arms), len(cohort.seeds))))

        wrong, moved = (parameters.padded.new_zeros(len(parameters.padded)) for _ in range(2))
        for epoch in order.unbind(dim=1):
            answers = []
            x_epoch, y_epoch = _chosen(cohort, inputs, epoch), _chosen(cohort, labels, epoch)
            for x, y in zip(x_epoch.unbind(dim=1), y_epoch.unbind(dim=1), strict=True):
                outputs = parameters.forward(cohort.network, x)
                parameters.gradient(cross_entropy(outputs, y).mean(dim=1) + cohort.intervention.penalty(parameters))
                before.copy_(parameters.padded)
                cohort.optimizer.step(parameters.padded, parameters.padded_gradient)
                moved += torch.linalg.vector_norm(before.sub_(parameters.padded), dim=1)
                answers.append(outputs.detach())
            wrong += mistakes(torch.stack(answers, dim=1), y_epoch).sum(dim=(1, 2))

        everything = torch.arange(problem.samples, device=cohort.device).expand(len(cohort.seeds), -1)
        x, y = _chosen(cohort, inputs, everything), _chosen(cohort, labels, everything)
        with torch.no_grad():
            outputs = forward(cohort.network, parameters.tensors, x)
            outcome = {
                "final_error": mistakes(outputs, y).mean(dim=1),
                "final_loss": cross_entropy(outputs, y).mean(dim=1),
                "online_error": wrong / order[0].numel(),
                "update_norm": moved / problem.steps,
            }
            finite = outcome["final_loss"].isfinite() & parameters.flat.isfinite().all(dim=1)
        outcomes.append({name: values.where(finite, torch.nan) for name, values in outcome.items()} | {"status": (~finite).to(torch.int8)})

    shape = (len(cohort.arms), len(cohort.seeds), problem.tasks)
    return {name: torch.stack([outcome[name] for outcome in outcomes], dim=1).view(shape).cpu().numpy() for name in outcomes[0]}


def _chosen(cohort: Cohort, values: Tensor, samples: Tensor) -> Tensor:
    """The chosen samples of each seed, for all members: ``(seed, n, …)`` and ``(seed, *samples)`` → ``(member, *samples, …)``."""
    first = torch.arange(len(values), device=values.device) * values.shape[1]
    places = samples + first.view(-1, *[1] * (samples.ndim - 1))
    return values.flatten(0, 1)[places.repeat(len(cohort.arms), *[1] * (samples.ndim - 1))]
