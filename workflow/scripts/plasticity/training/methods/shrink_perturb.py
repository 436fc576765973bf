"""Shrink and perturb after every step: θ ← (1 − shrink) θ + perturb · ε (Ash & Adams 2020, arXiv 1910.08475).

At every step as in Kumar et al. 2023 (arXiv 2308.11958), where ε is a newly initialised network. Left free: here ε has the
deviation of each tensor's initial law, and is uniform with initialization `pytorch`, else normal: that law itself, but for
`orthogonal`, and for a vit's positions with `pytorch`, which begin as normal numbers; what starts as a constant 0 is not
perturbed; norm layers are left alone. The optimizer's means stay.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Arms of a seed are perturbed in the same directions."""

    CLAIM = "shrinking"
    AT_MOST = {"shrink": 1}

    shrink: Tensor
    perturb: Tensor

    def setup(self, learner: Learner) -> None:
        self._deviations = learner.of_each(learner.deviations())
        self._kept = (1 - self.shrink)[:, None].where(~learner.of_norms(), 1)
        self._noise = torch.empty(
            len(learner.seeds),
            learner.parameters.flat.shape[1],
            device=learner.device,
            dtype=learner.dtype,
        )

    def on_task_start(self, learner: Learner) -> None:
        self._draws = learner.generators("shrink and perturb")

    def after_step(self, learner: Learner) -> None:
        for noise, draw in zip(self._noise, self._draws, strict=True):
            if learner.setting.network.initialization == "pytorch":
                noise.uniform_(-math.sqrt(3), math.sqrt(3), generator=draw)
            else:
                noise.normal_(generator=draw)
        learner.parameters.flat.mul_(self._kept).add_(
            learner.of_runs(self._noise * self._deviations) * self.perturb[:, None]
        )
