"""Draw all parameters and reset the optimizer every few tasks (Nikishin et al. 2022).

arXiv 2205.07802. A period of 1 is the baseline `fresh`. Longer periods show for how many tasks a
network still learns.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Resets at the start of tasks `period`, 2 · `period` and so on; a period of 0 means never."""

    CLAIM = "what is redrawn at a task boundary"
    WHOLE = ["period"]

    period: Tensor

    def on_task_start(self, learner: Learner) -> None:
        due = (self.period > 0) & (learner.task % self.period.clamp(min=1) == 0)
        if learner.task and due.any():
            mask = due[:, None].expand_as(learner.parameters.flat)
            learner.reinitialize(mask, learner.draw_parameters())
