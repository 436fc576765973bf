"""What an intervention looks at and changes: the network of all runs, its parameters, and the optimizer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plasticity.config.models import Setting
from plasticity.models import architecture, normalization
from plasticity.models.ensemble import Parameters, Watch, record_activations, rows
from plasticity.rng import generator
from plasticity.training import optimizer


class Learner:
    """All runs of an ensemble as they learn; each tensor has the run as its first dim.

    Attributes:
        setting: problem, network and optimizer of all runs.
        network: a plain module, whose own weights are not used.
        image: shape of one input, ``(channel, row, column)``.
        parameters, optimizer: of all runs.
        seeds: each once; `seed_of` is each run's place among them, shape ``(run,)``.
        task: the one at hand; `step` counts its steps.
        hidden: activations of the last step's batch, before that step, by layer, shapes ``(run, row, unit)``; only if a method watches.
    """

    def __init__(
        self,
        setting: Setting,
        seeds: Sequence[int],
        network: nn.Module,
        image: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Draw the parameters of as many runs as there are `seeds`."""
        self.setting, self.network, self.image, self.device, self.dtype = (
            setting,
            network,
            tuple(image),
            device,
            dtype,
        )
        self.seeds = list(dict.fromkeys(seeds))
        self.seed_of = torch.tensor([self.seeds.index(seed) for seed in seeds], device=device)
        self.task = self.step = 0
        self.hidden: dict[str, Tensor] = {}
        self.parameters = Parameters(
            self.fresh(), {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
        )
        self.optimizer = optimizer.build(setting.optimizer, self.parameters.padded)
        self._forward = self.parameters.bind(network)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs of all runs, each on its own inputs; shapes ``(run, n, …)``."""
        return self._forward(inputs)

    def record_activations(self, inputs: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """Outputs of all runs, as the call gives them, with hidden activations noted and multiplied by `gates`, by layer."""
        watch = Watch(masks)
        outputs = self._forward(inputs, watch)
        self.hidden = {
            layer: activations.to(self.dtype) for layer, activations in watch.hidden.items()
        }
        return outputs

    def fresh(self, purpose: str = "initial") -> Tensor:
        """Newly drawn initial parameters for the task at hand, shape ``(run, parameter)``; the same for every arm of a seed."""
        drawn = (
            architecture.initial(self.network, self.setting.network, seed, self.task, purpose)
            for seed in self.seeds
        )
        return self.of_runs(
            torch.cat([rows([tensors]).to(self.device, self.dtype) for tensors in drawn])
        )

    def reinitialize(self, where: Tensor, values: Tensor) -> None:
        """Change some parameters, whose past the optimizer forgets.

        Args:
            where: a mask of shape ``(parameter,)`` or ``(run, parameter)``.
            values: shape ``(run, parameter)``.
        """
        flat = self.parameters.flat.detach()
        flat.copy_(values.where(where, flat))
        self.optimizer.reset_state(where)

    @property
    def steps(self) -> int:
        """Steps that were taken in all tasks so far."""
        return self.task * self.setting.problem.steps + self.step

    def of_layers(self, *names: str) -> Tensor:
        """Which parameters are those of some layers, a mask of shape ``(parameter,)``."""
        return self.of_each(
            {name: name.rpartition(".")[0] in names for name in self.parameters.shapes}
        ).bool()

    def of_norms(self) -> Tensor:
        """Which parameters are those of norm layers, a mask of shape ``(parameter,)``."""
        return self.of_layers(
            *(
                name
                for name, layer in self.network.named_modules()
                if isinstance(layer, normalization.LAYERS)
            )
        )

    def deviations(self) -> dict[str, float]:
        """The standard deviation of each tensor's initial law, by name; 0 for what starts as a constant."""
        return architecture.deviations(self.network, self.setting.network)

    def of_each(self, values: Mapping[str, float]) -> Tensor:
        """A number of each tensor, by name, for each of its parameters, shape ``(parameter,)``."""
        parts = [
            torch.full(shape, values[name], dtype=torch.float64).flatten()
            for name, shape in self.parameters.shapes.items()
        ]
        return torch.cat(parts).to(self.device, self.dtype)

    def hidden_shapes(self) -> dict[str, torch.Size]:
        """Of one sample's hidden activations, by layer."""
        blank = torch.zeros(2, *self.image)
        with torch.no_grad(), record_activations(self.network, {}) as hidden:
            self.network(blank)
        return {layer: activations.shape[1:] for layer, activations in hidden.items()}

    def generators(self, purpose: str) -> list[torch.Generator]:
        """One for each seed, to draw what must not depend on other runs: started anew for each task."""
        starts = [int(generator(seed, purpose, self.task).integers(2**63)) for seed in self.seeds]
        return [torch.Generator(self.device).manual_seed(start) for start in starts]

    def of_runs(self, values: Tensor) -> Tensor:
        """Each run's share of what was drawn for each seed: ``(seed, …)`` → ``(run, …)``."""
        return values.index_select(0, self.seed_of)
