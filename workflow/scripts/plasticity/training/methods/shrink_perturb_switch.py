"""Shrink and perturb when a task begins: θ ← (1 − shrink) θ + perturb · θ′ (Ash & Adams 2020, arXiv 1910.08475).

θ′ is a newly initialised network. Norm layers are left alone, and so are the optimizer's means, of which the paper says
nothing.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """At each switch, but not before the first task."""

    CLAIM = "shrinking"
    AT_MOST = {"shrink": 1}

    shrink: Tensor
    perturb: Tensor

    def on_task_start(self, learner: Learner) -> None:
        if learner.task:
            flat = learner.parameters.flat.detach()
            mixed = (
                flat * (1 - self.shrink)[:, None]
                + learner.fresh("shrink and perturb") * self.perturb[:, None]
            )
            flat.copy_(flat.where(learner.of_norms(), mixed))
