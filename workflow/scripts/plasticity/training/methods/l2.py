"""L2 regularization toward zero: λ · ½ ‖θ‖²."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """A part of the loss, whose gradient Adam scales; on all parameters, including biases."""

    strength: Tensor

    def penalty(self, learner: Learner) -> QuadraticPenalty:
        return QuadraticPenalty(self.strength)
