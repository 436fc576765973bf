"""Optimizers, one file each: a class `Optimizer` whose fields are its hyper-parameters. The file's name is the optimizer's `kind`.

All runs take a step at once: one matrix of parameters, a row per run. torch's fused kernels without `torch.optim` around them, which
imports the compiler, for seconds in every job. On a CPU a kernel rounds the last few numbers of a matrix otherwise than the rest; rows
padded to whole vectors keep a run's numbers independent of its place.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from plasticity.config import models, registry


class Descent(ABC):
    """The base of all: running means by name, shaped like the parameters, and the number of each run's steps, shape ``(run,)``."""

    means: dict[str, Tensor]
    steps: Tensor

    @abstractmethod
    def setup(self, parameters: Tensor) -> None:
        """Start without memory, for parameters of shape ``(run, parameter)``."""

    @abstractmethod
    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Take a step, in place; both of shape ``(run, parameter)``, each row a whole number of vectors."""

    def state(self) -> dict[str, Tensor]:
        """What it remembers, by name: the tensors themselves."""
        return {**self.means, "steps": self.steps}

    def forget(self) -> None:
        """Clear the state, as if no step had been taken."""
        for remembered in self.state().values():
            remembered.zero_()

    def reset_state(self, where: Tensor) -> None:
        """Clear the means of some parameters, a mask of shape ``(parameter,)`` or ``(run, parameter)``.

        Steps are counted for all parameters of a run together, so they stay counted, but for a run of which all is forgotten.
        """
        for mean in self.means.values():
            mean[:, : where.shape[-1]].masked_fill_(where, 0)
        self.steps.masked_fill_(where.all(dim=-1), 0)


def build(optimizer: models.Optimizer, parameters: Tensor) -> Descent:
    """The optimizer that a setting describes, for parameters of shape ``(run, parameter)``."""
    built: Descent = registry.build("optimizers", optimizer.kind, optimizer.options)
    built.setup(parameters)
    return built
