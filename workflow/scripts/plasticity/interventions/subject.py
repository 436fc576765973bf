"""What a treatment gets: a checkpoint of one run, its initial parameters, the next task's inputs.

Each treatment is a file of `treatments/` with a function `treat`. It returns new parameters, and
declares these constants, which must be literals:

- `FAMILY`: control, restoring, harmful or preserving (it keeps the function of the network).
- `STRENGTH`: the strengths that it takes: share (above 0 and at most 1), positive (above 0) or
  above_one (above 1). A larger strength is a larger change. Without this constant, `treat` takes no
  strength.
- `OPTIMIZER_STATE`: kept, cleared, or cleared_where_changed (for the parameters that it changes).
- `ACTIVATIONS`: the values of `network.activation` that it can treat; all, without this constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plasticity import rng
from plasticity.config.models import Network
from plasticity.models import architecture, normalization


@dataclass(frozen=True)
class Subject:
    """A checkpoint of one run at a task boundary. All tensors are float64 and on the CPU.

    A treatment changes nothing of it.

    Attributes:
        network: a plain module, whose own weights are not used.
        config: the network in the config.
        parameters: of the checkpoint, by name.
        initial: of the same run at task 0, by name.
        inputs: training inputs of the next task, shape ``(sample, channel, row, column)``.
        seed: seed of the run.
        task: index of the next task.
        treatment: name of the treatment. Each has draws of its own.
    """

    network: nn.Module
    config: Network
    parameters: dict[str, Tensor]
    initial: dict[str, Tensor]
    inputs: Tensor
    seed: int
    task: int
    treatment: str

    @property
    def generator(self) -> torch.Generator:
        """A new generator. All strengths of a treatment and all arms of a seed get the same."""
        start = rng.generator(self.seed, self._purpose, self.task).integers(2**63)
        return torch.Generator().manual_seed(int(start))

    def draw_initial(self) -> dict[str, Tensor]:
        """Draw the parameters of a newly initialised network, by name.

        All strengths of a treatment and all arms of a seed get the same.
        """
        return architecture.draw_initial(
            self.network, self.config, self.seed, self.task, self._purpose
        )

    def stds(self) -> dict[str, float]:
        """Return the standard deviation of each initial parameter's distribution, by name.

        It is 0 for parameters that start as a constant.
        """
        return architecture.initial_stds(self.network, self.config)

    def weights_and_biases(self) -> dict[str, Tensor]:
        """Return all parameters but those of norm layers, by name."""
        return {
            name: tensor
            for name, tensor in self.parameters.items()
            if not isinstance(self._layer_of(name), normalization.NORM_CLASSES)
        }

    def matrices(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of linear layers and convolutions as matrices, by name.

        Args:
            parameters: those of the checkpoint, or the initial ones.

        Returns:
            Shapes ``(output, input)``, or ``(output, input · row · column)`` for a convolution.
        """
        return {
            name: tensor.flatten(1)
            for name, tensor in parameters.items()
            if isinstance(self._layer_of(name), (nn.Linear, nn.Conv2d)) and tensor.ndim > 1
        }

    def with_changes(self, changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return new tensors for all parameters.

        Args:
            changes: new values of some parameters, by name. They get the shapes of the parameters.
                The other parameters are copied.
        """
        copied = {}
        for name, tensor in self.parameters.items():
            value = changes.get(name, tensor).reshape(tensor.shape)
            copied[name] = value.clone(memory_format=torch.contiguous_format)
        return copied

    @property
    def _purpose(self) -> str:
        return f"treatment {self.treatment}"

    def _layer_of(self, name: str) -> nn.Module:
        """Return the layer that holds a parameter."""
        return self.network.get_submodule(name.rpartition(".")[0])
