"""Decoupled weight decay: after each step θ ← (1 − lr · strength) θ (Loshchilov & Hutter 2019, arXiv 1711.05101).

Unlike `l2`, not scaled by the optimizer. All weights and biases shrink, but for those of norm layers, which stay as they are.
Where lr · strength is above 1 the factor is 0: no sign changes.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """With the step size of the setting's optimizer."""

    strength: Tensor

    def setup(self, learner: Learner) -> None:
        kept = (1 - learner.setting.optimizer.options["lr"] * self.strength).clamp(min=0)
        self._kept = kept[:, None].where(~learner.of_norms(), 1)

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.mul_(self._kept)
