"""Decoupled weight decay: θ ← (1 − lr · strength) θ after each step.

Loshchilov & Hutter 2019, arXiv 1711.05101. Unlike `l2`, the optimizer does not scale it. All
weights and biases decay, except those of norm layers. The factor is at least 0, so that no sign
changes.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """lr is the step size of the setting's optimizer."""

    strength: Tensor

    def setup(self, learner: Learner) -> None:
        lr = learner.setting.optimizer.options["lr"]
        factor = (1 - lr * self.strength).clamp(min=0)
        self._factor = factor[:, None].where(~learner.norm_mask(), 1)

    def after_step(self, learner: Learner) -> None:
        learner.parameters.flat.mul_(self._factor)
