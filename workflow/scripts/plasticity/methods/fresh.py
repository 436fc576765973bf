"""A freshly initialised network for every task: the yardstick, which has no plasticity to lose."""

from torch import Tensor

from plasticity.lockstep import Parameters
from plasticity.methods import Intervention
from plasticity.optimizers import Descent


class Method(Intervention):
    """Parameters drawn anew and the optimizer's state forgotten at every task."""

    def switch(self, parameters: Parameters, optimizer: Descent, fresh: Tensor) -> None:
        parameters.flat.copy_(fresh)
        optimizer.forget()
