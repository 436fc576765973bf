"""Wasserstein regularization: λ · ½ Σ over tensors of Σᵢ (w₍ᵢ₎ − w⁰₍ᵢ₎)² (arXiv 2312.00246).

The order p = 2 is inferred. In one dimension, optimal transport pairs the current and the initial
weights of a tensor by rank, so their distance is that of the sorted values. Weights can move freely
as long as their distribution does not change.
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

INDEX_BITS = 2**29 - 1  # the bits of a float64 that a float32 does not use
# added to a key so that it is a normal number; of all float32 numbers this changes only 0
SMALLEST = 2.0**-1000


@dataclass
class Method(Intervention):
    """Each tensor is compared with its own initial values, biases too.

    The target of a weight is the initial value of the same rank. It does not change with the weight
    (almost everywhere), so no gradient through a sort is needed.

    Ranks are computed in every step by default. On a CPU, `ranks_every: n` computes them in the
    first step of a task and in every n-th step after it. This approximation saves time;
    docs/development/performance.md says what it changes.
    """

    WHOLE = ["ranks_every"]

    strength: Tensor
    ranks_every: Tensor = default(1)

    def setup(self, learner: Learner) -> None:
        parameters = learner.parameters
        tensors = {name: tensor.detach().flatten(1) for name, tensor in parameters.tensors.items()}
        self.initial = {name: values.sort(dim=1).values for name, values in tensors.items()}
        # reused in every step, because allocation took a quarter of a step
        self._target = torch.zeros_like(parameters.flat)
        self._target_of = {
            name: values.flatten(1) for name, values in parameters.split(self._target).items()
        }
        self._keys = {
            name: torch.empty_like(values, dtype=torch.float64) for name, values in tensors.items()
        }
        is_cpu = learner.device.type == "cpu"
        cores = len(os.sched_getaffinity(0)) if is_cpu else 1
        self._blocks = self._divide(cores, is_cpu)
        self._pool = ThreadPoolExecutor(cores, initializer=partial(torch.set_num_threads, 1))

    def penalty(self, learner: Learner) -> QuadraticPenalty:
        due = [runs for every, runs in self._blocks if learner.step % every == 0]
        rank = partial(self._rank, learner)
        if len(due) > 1:
            list(self._pool.map(rank, due))
        else:
            for runs in due:
                rank(runs)
        return QuadraticPenalty(self.strength, self._target)

    def _divide(self, cores: int, is_cpu: bool) -> list[tuple[int, slice]]:
        """Divide the runs into blocks, one per thread, of equal `ranks_every`.

        The results do not depend on the blocks.
        """
        every = [1] * len(self.ranks_every)
        if is_cpu:
            every = self.ranks_every.clamp(min=1).int().tolist()
        blocks = []
        for steps, runs in groupby(range(len(every)), every.__getitem__):
            parts = np.array_split(list(runs), cores)
            blocks += [(steps, slice(part[0], part[-1] + 1)) for part in parts if len(part)]
        return blocks

    def _rank(self, learner: Learner, runs: slice) -> None:
        """Set the target of each weight of some runs to the initial value of the same rank."""
        for name, tensor in learner.parameters.tensors.items():
            values = tensor.detach().flatten(1)[runs]
            indices = argsort(values, self._keys[name][runs])
            self._target_of[name][runs].scatter_(1, indices, self.initial[name][runs])


def argsort(values: Tensor, keys: Tensor) -> Tensor:
    """Return the indices that sort the last dim of `values`.

    On a CPU, sorting numbers is three times as fast as sorting indices by them. So each float32 and
    its index are packed into one float64, which has free bits after those of a float32. An index
    packed with a 0 would be a denormal number. Processors that flush these take it for 0, and then
    some index appears twice.

    Args:
        values: shape ``(…, n)``.
        keys: memory of the same shape in float64; it is overwritten.

    Returns:
        Integers, shape ``(…, n)``.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(dim=-1)
    bits = keys.copy_(values).add_(SMALLEST).view(torch.int64)
    indices = bits.bitwise_or_(torch.arange(values.shape[-1]))
    keys.numpy().sort(axis=-1)
    return indices.bitwise_and_(INDEX_BITS)
