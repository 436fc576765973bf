"""Wasserstein regularization: λ · ½ Σ over tensors of Σᵢ (w₍ᵢ₎ − w⁰₍ᵢ₎)² (arXiv 2312.00246; its order p = 2 is inferred).

In one dimension the optimal transport between the weights' current and initial empirical distributions pairs them by rank,
so a tensor's distance is that of its sorted values. Weights may move freely as long as their distribution stays.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default

INDEX = 2**29 - 1  # the bits of a float64 that a float32 leaves free
NORMAL = 2.0**-1000  # of all float32 numbers, only 0 is changed by adding it


@dataclass
class Method(Intervention):
    """Each tensor by itself, biases too.

    A weight's partner, the initial value of its rank, does not change with the weight (almost everywhere), so the gradient needs
    the ranks alone and none is taken through a sort. Ranks are those of the very step; with `ranks_every` above 1 those of a task's first
    step and of every so many after it, an approximation that saves time on a CPU (docs/development/performance.md says what it changes); on a GPU
    they are always those of the step.
    """

    WHOLE = ["ranks_every"]

    strength: Tensor
    ranks_every: Tensor = default(1)

    def setup(self, learner: Learner) -> None:
        tensors = {
            name: tensor.detach().flatten(1) for name, tensor in learner.parameters.tensors.items()
        }
        self.initial = {name: values.sort(dim=1).values for name, values in tensors.items()}
        # room to work in at every step: asking for it anew took a quarter of the step
        self._target = torch.zeros_like(learner.parameters.flat)
        self._partners = {
            name: of_tensor.flatten(1)
            for name, of_tensor in learner.parameters.split(self._target).items()
        }
        self._keys = {
            name: torch.empty_like(values, dtype=torch.float64) for name, values in tensors.items()
        }
        # runs whose ranks are found together; they are the same in whatever thread
        cores = len(os.sched_getaffinity(0)) if learner.device.type == "cpu" else 1
        every = (
            self.ranks_every.clamp(min=1).int().tolist()
            if learner.device.type == "cpu"
            else [1] * len(self.strength)
        )
        self._blocks = [
            (steps, slice(part[0], part[-1] + 1))
            for steps, runs in groupby(range(len(every)), every.__getitem__)
            for part in np.array_split(list(runs), cores)
            if len(part)
        ]
        self._pool = ThreadPoolExecutor(cores, initializer=partial(torch.set_num_threads, 1))

    def penalty(self, learner: Learner) -> QuadraticPenalty:
        due = [runs for steps, runs in self._blocks if learner.step % steps == 0]
        list((self._pool.map if len(due) > 1 else map)(partial(self._rank, learner), due))
        return QuadraticPenalty(self.strength, self._target)

    def _rank(self, learner: Learner, runs: slice) -> None:
        """Find the partners of some runs' weights: of the i-th in size the i-th of the initial ones."""
        for name, tensor in learner.parameters.tensors.items():
            places = order(tensor.detach().flatten(1)[runs], self._keys[name][runs])
            self._partners[name][runs].scatter_(1, places, self.initial[name][runs])


def order(values: Tensor, keys: Tensor) -> Tensor:
    """Indices that sort the last dim of `values`; what is in `keys`, of the same shape in float64, is lost.

    On a CPU sorting numbers is three times as fast as sorting indices by them, so each float32 goes with its index into one number: as a
    float64 it has bits to spare below its last. An index beside a 0 alone would be a denormal number, which is 0 to a processor that is
    told to flush them: numpy then writes some index twice.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(dim=-1)
    indices = (
        keys.copy_(values)
        .add_(NORMAL)
        .view(torch.int64)
        .bitwise_or_(torch.arange(values.shape[-1]))
    )
    keys.numpy().sort(axis=-1)
    return indices.bitwise_and_(INDEX)
