"""Neuroplastic expansion: a sparse network that grows (Liu et al. 2024, arXiv 2410.07994).

As far as it carries over from reinforcement learning. A share `density` of the weights is there at the start, those of
largest magnitude, spread over layers by the Erdős–Rényi rule (a layer's share in proportion to (inputs + outputs) / (inputs
· outputs), at most 1); the others are 0. After every `period` steps each layer gains `growth` of its weights, where the
loss's gradient is largest among those that are not there, and loses `prune` times as many, the smallest of those that are,
until a share `most` of its weights is there. Weights come in at 0, and the optimizer has no past of them. Biases and norms
are always there.

Left free, or left out: one step's batch gives the gradient; growth is constant, as in the authors' runs; what is pruned is
small, as in their code, where the paper speaks of dormant units; experience review is about a replay buffer, and nothing
follows the end of growth. Composed with others it acts last: what they make of weights that are not there is undone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default


@dataclass
class Method(Intervention):
    """The authors' numbers, but for the density at the start, which has none that holds everywhere (theirs: 0.2); 1 is a dense network."""

    CLAIM = "which units start anew"
    AT_MOST = {"density": 1, "growth": 1, "prune": 1, "most": 1}
    WHOLE = ["period"]
    LAST = True

    density: Tensor
    growth: Tensor = default(0.008)
    prune: Tensor = default(0.4)
    most: Tensor = default(0.75)
    period: Tensor = default(100)

    def setup(self, learner: Learner) -> None:
        self._layers = [
            f"{name}.weight"
            for name, layer in learner.network.named_modules()
            if isinstance(layer, (nn.Linear, nn.Conv2d))
        ]
        weights = {
            name: learner.parameters.tensors[name].detach().flatten(1) for name in self._layers
        }
        shares = torch.tensor(
            [
                erdos_renyi([learner.parameters.shapes[name] for name in weights], density)
                for density in self.density.tolist()
            ]
        )
        self.there = torch.ones_like(learner.parameters.flat, dtype=torch.bool)
        there = learner.parameters.split(self.there)
        for (name, values), share in zip(
            weights.items(), shares.T.to(self.there.device), strict=True
        ):
            count = (share * values.shape[1]).round()
            there[name].copy_(
                first(-values.abs(), torch.ones_like(values, dtype=torch.bool), count).view_as(
                    there[name]
                )
            )
        with torch.no_grad():
            learner.parameters.flat.mul_(self.there)

    def state(self) -> dict[str, Tensor]:
        return {"there": self.there}

    def on_task_start(self, learner: Learner) -> None:
        learner.parameters.flat.mul_(self.there)  # whatever drew or moved all of them

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.mul_(self.there)
        due = (self.period > 0) & (learner.steps % self.period.clamp(min=1) == 0)
        if not due.any():
            return
        changed = torch.zeros_like(self.there)
        gradient = learner.parameters.padded_gradient[:, : self.there.shape[1]]
        views = (
            learner.parameters.split(matrix)
            for matrix in (learner.parameters.flat.detach(), gradient, self.there, changed)
        )
        of_weights, of_gradients, of_there, of_changed = views
        for name in self._layers:
            weight, slope, there = (
                of_tensor[name].flatten(1) for of_tensor in (of_weights, of_gradients, of_there)
            )
            growing = due & (there.double().mean(dim=1) < self.most)
            gain = (self.growth * there.shape[1]).floor() * growing
            lost = first(weight.abs(), there, (self.prune * gain).floor())
            kept = there & ~lost
            gained = first(-slope.abs(), ~kept, gain)
            of_there[name].copy_((kept | gained).view_as(of_there[name]))
            of_changed[name].copy_((lost | gained).view_as(of_changed[name]))
        learner.reinitialize(changed, torch.zeros_like(gradient))


def erdos_renyi(shapes: Sequence[Sequence[int]], density: float) -> list[float]:
    """Shares of the weights of some layers, ``(output, input, …)``, that are there so that they are a given share of all of them."""
    sizes = [math.prod(shape) for shape in shapes]
    rule = [
        (shape[0] + math.prod(shape[1:])) / size for shape, size in zip(shapes, sizes, strict=True)
    ]
    dense: set[int] = set()
    while sparse := set(range(len(sizes))) - dense:
        left = density * sum(sizes) - sum(sizes[layer] for layer in dense)
        scale = left / sum(rule[layer] * sizes[layer] for layer in sparse)
        if not (full := {layer for layer in sparse if scale * rule[layer] > 1}):
            return [1.0 if layer in dense else scale * rule[layer] for layer in range(len(sizes))]
        dense |= full
    return [1.0] * len(sizes)


def first(scores: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """Those of the lowest scores, so many of each run among its candidates, as far as there are; booleans ``(run, weight)``."""
    place = scores.where(among, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return among & (place < count[:, None])
