"""All parameters drawn anew, and the optimizer's state forgotten, every so many tasks (Nikishin et al. 2022, arXiv 2205.07802).

With a period of 1 it is the baseline `fresh`; longer periods say for how many tasks a network goes on to learn.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """At switches to tasks `period`, 2 · `period` …; 0 is never."""

    CLAIM = "what is drawn anew at a switch"
    WHOLE = ["period"]

    period: Tensor

    def on_task_start(self, learner: Learner) -> None:
        due = (self.period > 0) & (learner.task % self.period.clamp(min=1) == 0)
        if learner.task and due.any():
            learner.reinitialize(due[:, None].expand_as(learner.parameters.flat), learner.fresh())
