"""Dropout (Srivastava et al. 2014, JMLR 15).

In training, each hidden activation is 0 with probability `rate`, and is divided by 1 − rate
otherwise. Single numbers are dropped after each activation, after convolutions too. Final errors
and all measures use the network without dropout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """All arms of a seed use the same draws, so a higher rate drops more of the same numbers."""

    AT_MOST = {"rate": 1}
    USES_ACTIVATIONS = True

    rate: Tensor

    def setup(self, learner: Learner) -> None:
        self._shapes = learner.hidden_shapes()

    def on_task_start(self, learner: Learner) -> None:
        self._generators = learner.generators("dropout")

    def masks(self, learner: Learner) -> dict[str, Tensor]:
        device, dtype = learner.device, learner.dtype
        masks = {}
        for layer, shape in self._shapes.items():
            size = (learner.setting.problem.batch, *shape)
            draws = [
                torch.rand(size, generator=generator, device=device, dtype=dtype)
                for generator in self._generators
            ]
            rate = self.rate.view(-1, *[1] * len(size))
            stays = learner.per_run(torch.stack(draws)) >= rate
            masks[layer] = stays / (1 - rate).clamp(min=torch.finfo(rate.dtype).tiny)
        return masks
