"""Neuroplastic expansion: a sparse network that grows (Liu et al. 2024, arXiv 2410.07994).

At the start a share `density` of the weights is active: those of largest magnitude, spread over
layers by the Erdős–Rényi rule. By this rule a layer's share is proportional to
(inputs + outputs) / (inputs · outputs), and at most 1. All other weights are 0. Biases and norms
are always active.

After every `period` steps each layer

- gains `growth` of its weights, where the loss has the largest gradient among inactive weights;
- loses `prune` times as many, the smallest of the active weights.

It stops when a share `most` of its weights is active. New weights start at 0, without optimizer
state.

Our choices, as the method comes from reinforcement learning: one batch gives the gradient. Growth
is constant, as in the authors' runs. Small weights are pruned, as in their code; the paper prunes
dormant units. There is no experience review, because it needs a replay buffer, and nothing happens
after the end of growth. In a composition this method acts last and undoes changes of inactive
weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, Schedule, default


@dataclass
class Method(Intervention):
    """The authors' values; their density is 0.2, and 1 is a dense network."""

    CLAIM = "which units are reset"
    AT_MOST = {"density": 1, "growth": 1, "prune": 1, "most": 1}
    WHOLE = ["period"]
    LAST = True

    density: Tensor
    growth: Tensor = default(0.008)
    prune: Tensor = default(0.4)
    most: Tensor = default(0.75)
    period: Tensor = default(100)

    def setup(self, learner: Learner) -> None:
        parameters = learner.parameters
        self._schedule = Schedule(self.period)
        self._weights = [
            f"{name}.weight"
            for name, layer in learner.network.named_modules()
            if isinstance(layer, (nn.Linear, nn.Conv2d))
        ]
        shapes = [parameters.shapes[name] for name in self._weights]
        shares = torch.tensor([erdos_renyi(shapes, density) for density in self.density.tolist()])
        self.active = torch.ones_like(parameters.flat, dtype=torch.bool)
        active_of = parameters.split(self.active)
        of_layers = shares.T.to(self.active.device)
        for name, share in zip(self._weights, of_layers, strict=True):
            values = parameters.tensors[name].detach().flatten(1)
            count = (share * values.shape[1]).round()
            everywhere = torch.ones_like(values, dtype=torch.bool)
            largest = lowest(-values.abs(), everywhere, count)
            active_of[name].copy_(largest.view_as(active_of[name]))
        with torch.no_grad():
            parameters.flat.mul_(self.active)

    def state(self) -> dict[str, Tensor]:
        return {"active": self.active}

    def on_task_start(self, learner: Learner) -> None:
        # other methods, or a new output layer, may have changed inactive weights
        learner.parameters.flat.mul_(self.active)

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.mul_(self.active)
        due = self._schedule.due(learner.total_steps)
        if due is not None:
            self._grow(learner, due)

    def _grow(self, learner: Learner, due: Tensor) -> None:
        """Change which weights are active, in the runs where it is due."""
        parameters = learner.parameters
        changed = torch.zeros_like(self.active)
        gradient = parameters.padded_gradient[:, : self.active.shape[1]]
        weight_of = parameters.split(parameters.flat.detach())
        gradient_of = parameters.split(gradient)
        active_of = parameters.split(self.active)
        changed_of = parameters.split(changed)
        for name in self._weights:
            weight = weight_of[name].flatten(1)
            active = active_of[name].flatten(1)
            growing = due & (active.double().mean(dim=1) < self.most)
            count = (self.growth * active.shape[1]).floor() * growing
            lost = lowest(weight.abs(), active, (self.prune * count).floor())
            remaining = active & ~lost
            gained = lowest(-gradient_of[name].flatten(1).abs(), ~remaining, count)
            active_of[name].copy_((remaining | gained).view_as(active_of[name]))
            changed_of[name].copy_((lost | gained).view_as(changed_of[name]))
        learner.reinitialize(changed, torch.zeros_like(gradient))


def erdos_renyi(shapes: Sequence[Sequence[int]], density: float) -> list[float]:
    """Compute the share of active weights in each layer by the Erdős–Rényi rule.

    Args:
        shapes: shape of each layer's weight, ``(output, input, …)``.
        density: share of active weights in all layers together.

    Returns:
        One share per layer, at most 1.
    """
    sizes = [math.prod(shape) for shape in shapes]
    rule = [
        (shape[0] + math.prod(shape[1:])) / size for shape, size in zip(shapes, sizes, strict=True)
    ]
    layers = range(len(sizes))
    dense: set[int] = set()
    while len(dense) < len(sizes):
        sparse = set(layers) - dense
        left = density * sum(sizes) - sum(sizes[layer] for layer in dense)
        scale = left / sum(rule[layer] * sizes[layer] for layer in sparse)
        full = {layer for layer in sparse if scale * rule[layer] > 1}
        if not full:
            return [1.0 if layer in dense else scale * rule[layer] for layer in layers]
        dense |= full
    return [1.0] * len(sizes)


def lowest(scores: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """Select the candidates with the lowest scores in each run.

    Args:
        scores: shape ``(run, weight)``.
        candidates: booleans of shape ``(run, weight)``.
        count: how many to select, shape ``(run,)``; all candidates if there are fewer.

    Returns:
        Booleans of shape ``(run, weight)``.
    """
    rank = scores.where(candidates, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return candidates & (rank < count[:, None])
