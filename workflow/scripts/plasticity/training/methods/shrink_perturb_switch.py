"""Shrink and perturb at the start of a task: θ ← (1 − shrink) θ + perturb · θ′.

From Ash & Adams 2020, arXiv 1910.08475. θ′ is a newly initialised network. Norm layers do not
change, and neither do the optimizer's means, which the paper does not mention.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """At each task boundary, so not before task 0."""

    CLAIM = "shrinking"
    AT_MOST = {"shrink": 1}

    shrink: Tensor
    perturb: Tensor

    def on_task_start(self, learner: Learner) -> None:
        if not learner.task:
            return
        flat = learner.parameters.flat.detach()
        shrunk = flat * (1 - self.shrink)[:, None]
        noise = learner.draw_parameters("shrink and perturb") * self.perturb[:, None]
        flat.copy_(flat.where(learner.norm_mask(), shrunk + noise))
