"""Hare & Tortoise (Lee et al. 2024, arXiv 2406.02596): a slow copy follows what learns, and every so often what learns goes back to it.

After each step slow ← momentum · slow + (1 − momentum) · θ; after every `period` steps θ ← slow. As in the authors' code the
optimizer's state stays at a return, and the slow copy is never drawn anew; theirs returns every ten epochs. Outcomes and
checkpoints are of the hare, which learns: on a stationary test set the authors judge the tortoise.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default


@dataclass
class Method(Intervention):
    """A period of 0 is never."""

    AT_MOST = {"momentum": 1}
    WHOLE = ["period"]

    period: Tensor
    momentum: Tensor = default(0.999)

    def setup(self, learner: Learner) -> None:
        self.slow = learner.parameters.flat.detach().clone()

    def state(self) -> dict[str, Tensor]:
        return {"slow": self.slow}

    def after_step(self, learner: Learner) -> None:
        hare = learner.parameters.flat.detach()
        self.slow.lerp_(hare, (1 - self.momentum)[:, None])
        due = (self.period > 0) & (learner.steps % self.period.clamp(min=1) == 0)
        if due.any():
            hare.copy_(self.slow.where(due[:, None], hare))
