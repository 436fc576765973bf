"""The output layer drawn anew when a task begins (Nikishin et al. 2022, arXiv 2205.07802: resets of the last layers).

The optimizer's means of it are cleared. The same as `head: fresh` of a problem, as a method: beside others, in one study.
"""

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


class Method(Intervention):
    """At each switch, but not before the first task."""

    CLAIM = "what is drawn anew at a switch"

    def on_task_start(self, learner: Learner) -> None:
        if learner.task:
            learner.reinitialize(learner.of_layers("output"), learner.fresh())
