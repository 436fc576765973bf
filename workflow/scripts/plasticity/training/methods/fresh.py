"""A freshly initialised network for every task: the baseline, which has no plasticity to lose."""

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


class Method(Intervention):
    """Parameters drawn anew and the optimizer's state forgotten at every task."""

    CLAIM = "everything"

    def on_task_start(self, learner: Learner) -> None:
        learner.parameters.flat.copy_(learner.fresh())
        learner.optimizer.forget()
