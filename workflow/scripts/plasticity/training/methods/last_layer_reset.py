"""Draw the output layer at the start of each task (Nikishin et al. 2022, arXiv 2205.07802).

The optimizer's means of this layer are cleared. This is the same as `head: fresh` of a problem, but
as a method, so that a study can compare it with other methods.
"""

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


class Method(Intervention):
    """At each task boundary, so not before task 0."""

    CLAIM = "what is redrawn at a task boundary"

    def on_task_start(self, learner: Learner) -> None:
        if learner.task:
            learner.reinitialize(learner.layer_mask("output"), learner.draw_parameters())
