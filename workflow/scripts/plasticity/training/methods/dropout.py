"""Dropout (Srivastava et al. 2014, JMLR 15): while training, each hidden activation is 0 with probability `rate`, else divided by 1 − rate.

Single numbers are dropped after each activation, after convolutions too. Errors at a task's end, and all measures, are of
the whole network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Arms of a seed draw alike: at a higher rate, all that is dropped at a lower one is dropped, and more."""

    AT_MOST = {"rate": 1}
    WATCHES = True

    rate: Tensor

    def setup(self, learner: Learner) -> None:
        self._shapes = learner.hidden_shapes()

    def on_task_start(self, learner: Learner) -> None:
        self._draws = learner.generators("dropout")

    def masks(self, learner: Learner) -> dict[str, Tensor]:
        masks = {}
        for layer, shape in self._shapes.items():
            size = (learner.setting.problem.batch, *shape)
            drawn = torch.stack(
                [
                    torch.rand(size, generator=draw, device=learner.device, dtype=learner.dtype)
                    for draw in self._draws
                ]
            )
            rate = self.rate.view(-1, *[1] * len(size))
            masks[layer] = (learner.of_runs(drawn) >= rate) / (1 - rate).clamp(
                min=torch.finfo(rate.dtype).tiny
            )
        return masks
