"""L2 Init: λ · ½ ‖θ − θ₀‖² (Kumar, Marklund & Van Roy, arXiv 2308.11958, equation 1)."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Each parameter is pulled toward its own initial value: pairs by index."""

    strength: Tensor

    def setup(self, learner: Learner) -> None:
        self.initial = learner.parameters.flat.detach().clone()

    def penalty(self, learner: Learner) -> QuadraticPenalty:
        return QuadraticPenalty(self.strength, self.initial)
