"""The baseline: a network initialised from scratch for every task."""

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


class Method(Intervention):
    """Draw all parameters and reset the optimizer at every task."""

    CLAIM = "everything"

    def on_task_start(self, learner: Learner) -> None:
        learner.parameters.flat.copy_(learner.draw_parameters())
        learner.optimizer.reset()
