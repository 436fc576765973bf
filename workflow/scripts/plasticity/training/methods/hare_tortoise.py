"""Hare & Tortoise: return to a slow copy of the network now and then (Lee et al. 2024).

arXiv 2406.02596. After each step slow ← momentum · slow + (1 − momentum) · θ. After every `period`
steps θ ← slow. As in the authors' code, the optimizer's state does not change then, and the slow
copy is never drawn again; their period is ten epochs. Outcomes and checkpoints are those of the
hare θ. The authors test the tortoise, on a test set that does not change.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, Schedule, default


@dataclass
class Method(Intervention):
    """A period of 0 means never."""

    AT_MOST = {"momentum": 1}
    WHOLE = ["period"]

    period: Tensor
    momentum: Tensor = default(0.999)

    def setup(self, learner: Learner) -> None:
        self.slow = learner.parameters.flat.detach().clone()
        self._schedule = Schedule(self.period)

    def state(self) -> dict[str, Tensor]:
        return {"slow": self.slow}

    def after_step(self, learner: Learner) -> None:
        hare = learner.parameters.flat.detach()
        self.slow.lerp_(hare, (1 - self.momentum)[:, None])
        due = self._schedule.due(learner.total_steps)
        if due is not None:
            hare.copy_(self.slow.where(due[:, None], hare))
