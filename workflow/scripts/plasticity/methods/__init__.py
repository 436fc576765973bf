"""Methods, one file each: a class `Method` whose fields are its hyper-parameters. The file's name is the method's.

What a method does not override, it leaves alone. All members of a cohort are treated at once: every tensor has the member
as its first dim, and each hyper-parameter is a tensor of shape ``(member,)``, since arms differ in it.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.lockstep import Parameters, Pull
from plasticity.optimizers import Descent


@dataclass
class Intervention:
    """No intervention: the base of all methods."""

    def begin(self, parameters: Parameters) -> None:
        """Called once, with the initial parameters."""

    def state(self) -> dict[str, Tensor]:
        """Tensors by name that change while training and that a resumed run must take up again; besides parameters and optimizer."""
        return {}

    def penalty(self, parameters: Parameters) -> Tensor | Pull | None:
        """What is added to each member's loss, shape ``(member,)``; a `Pull`, where it is one, is cheaper; None for nothing."""
        return None

    def switch(self, parameters: Parameters, optimizer: Descent, fresh: Tensor) -> None:
        """Called when a task begins, task 0 too, under `torch.no_grad`.

        Args:
            parameters: to be changed in place.
            optimizer: with its memory.
            fresh: newly drawn initial parameters for this task, shaped like `parameters.flat`.
        """
