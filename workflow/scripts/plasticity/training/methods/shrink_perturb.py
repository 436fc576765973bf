"""Shrink and perturb after every step: θ ← (1 − shrink) θ + perturb · ε.

From Ash & Adams 2020, arXiv 1910.08475; at every step as in Kumar et al. 2023, arXiv 2308.11958,
where ε is a newly initialised network.

Our choices: ε has the standard deviation of each tensor's initial values. It is uniform with
initializations `he_uniform` and `pytorch`, and normal otherwise. This is the initial distribution
itself, with two exceptions: `orthogonal`, and a vit's positions, which are initially normal.
Tensors that are initially constant 0 are not perturbed. Norm layers and the optimizer's means do
not change.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from plasticity.models import architecture
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """All arms of a seed are perturbed in the same directions."""

    CLAIM = "shrinking"
    AT_MOST = {"shrink": 1}

    shrink: Tensor
    perturb: Tensor

    def setup(self, learner: Learner) -> None:
        flat = learner.parameters.flat.detach()
        self._deviations = learner.per_parameter(learner.deviations())
        self._factor = (1 - self.shrink)[:, None].where(~learner.norm_mask(), 1)
        self._noise = flat.new_empty(len(learner.seeds), flat.shape[1])

    def on_task_start(self, learner: Learner) -> None:
        self._generators = learner.generators("shrink and perturb")

    def after_step(self, learner: Learner) -> None:
        is_uniform = learner.setting.network.initialization in architecture.UNIFORM
        for noise, generator in zip(self._noise, self._generators, strict=True):
            if is_uniform:
                noise.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)
            else:
                noise.normal_(generator=generator)
        noise = learner.per_run(self._noise * self._deviations)
        learner.parameters.flat.mul_(self._factor).add_(noise * self.perturb[:, None])
