"""The base class of optimizers.

An optimizer is one file in `optimizers/` with a class `Optimizer`. The file's name is its `kind` in
a config, and the fields of the class are its hyperparameters.

One call updates all runs, a row each. Optimizers use torch's fused kernels directly, because
`torch.optim` imports the compiler, which takes seconds in every job. On a CPU such a kernel may
round the last few numbers of a matrix differently. Rows are padded to whole vectors, so that the
numbers of a run do not depend on its row.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from plasticity.config import models, registry


class Optimizer(ABC):
    """The base of all optimizers.

    Attributes:
        means: running means by name, shaped like the parameters.
        steps: number of steps of each run, shape ``(run,)``.
    """

    means: dict[str, Tensor]
    steps: Tensor

    @abstractmethod
    def setup(self, parameters: Tensor) -> None:
        """Create an empty state for parameters of shape ``(run, parameter)``."""

    @abstractmethod
    def step(self, parameters: Tensor, gradient: Tensor) -> None:
        """Take a step in place.

        Args:
            parameters: shape ``(run, parameter)``; each row is a whole number of vectors.
            gradient: the same shape; not changed.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the state by name, not copies."""
        return {**self.means, "steps": self.steps}

    def reset(self) -> None:
        """Clear the whole state, as if no step had been taken."""
        for tensor in self.state().values():
            tensor.zero_()

    def reset_state(self, mask: Tensor) -> None:
        """Clear the means of some parameters.

        The steps of a run are counted for all its parameters together. They are reset only for a
        run whose parameters are all selected.

        Args:
            mask: booleans of shape ``(parameter,)`` or ``(run, parameter)``.
        """
        for mean in self.means.values():
            mean[:, : mask.shape[-1]].masked_fill_(mask, 0)
        self.steps.masked_fill_(mask.all(dim=-1), 0)


def build(config: models.Optimizer, parameters: Tensor) -> Optimizer:
    """Build the optimizer of a setting for parameters of shape ``(run, parameter)``."""
    optimizer: Optimizer = registry.build("optimizers", config.kind, config.options)
    optimizer.setup(parameters)
    return optimizer
