"""A freshly initialised network for every task: the yardstick, which has no plasticity to lose."""

import torch
from torch import Tensor

from plasticity.lockstep import Parameters
from plasticity.methods import Intervention


class Method(Intervention):
    """Parameters drawn anew and the optimizer's state forgotten at every task."""

    def switch(self, parameters: Parameters, optimizer: torch.optim.Optimizer, fresh: Tensor) -> None:
        parameters.flat.copy_(fresh)
        optimizer.state.clear()
