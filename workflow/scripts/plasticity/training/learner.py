"""What a method can see and change: the network of all runs, its parameters, and the optimizer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from plasticity.config.models import Setting
from plasticity.models import architecture, normalization
from plasticity.models.ensemble import Parameters, Watch, record_activations, rows
from plasticity.rng import generator
from plasticity.training import optimizer


class Learner:
    """All runs of an ensemble while they learn. The first dim of each tensor is the run.

    Attributes:
        setting: problem, network and optimizer of all runs.
        network: a plain module; its own weights are not used.
        image: shape of one input, ``(channel, row, column)``.
        parameters: the parameters of all runs, and their gradients.
        optimizer: its state covers all runs.
        seeds: the different seeds of the runs.
        seed_of: index into `seeds` for each run, shape ``(run,)``.
        task: number of the current task.
        step: number of steps taken in the current task.
        hidden: activations on the batch of the last step, before that step, by layer, shapes
            ``(run, row, unit)``. Recorded only if a method sets `USES_ACTIVATIONS`.
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
        """Draw the initial parameters.

        Args:
            setting: problem, network and optimizer of all runs.
            seeds: the seed of each run.
            network: a plain module.
            image: shape of one input, ``(channel, row, column)``.
            device: of all tensors.
            dtype: of parameters and inputs.
        """
        self.setting = setting
        self.network = network
        self.image = tuple(image)
        self.device = device
        self.dtype = dtype
        self.seeds = list(dict.fromkeys(seeds))
        self.seed_of = torch.tensor([self.seeds.index(seed) for seed in seeds], device=device)
        self.task = 0
        self.step = 0
        self.hidden: dict[str, Tensor] = {}
        shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
        self.parameters = Parameters(self.draw_parameters(), shapes)
        self.optimizer = optimizer.build(setting.optimizer, self.parameters.padded)
        self._forward = self.parameters.bind(network)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of all runs, each on its own inputs, shapes ``(run, n, …)``."""
        return self._forward(inputs)

    def record_activations(self, inputs: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """Compute the outputs and store the hidden activations in `hidden`.

        Args:
            inputs: shape ``(run, n, …)``.
            masks: multiplied with hidden activations, by layer, shapes ``(run, n, …)``.

        Returns:
            Outputs of all runs, shape ``(run, n, …)``.
        """
        watch = Watch(masks)
        outputs = self._forward(inputs, watch)
        self.hidden = {layer: values.to(self.dtype) for layer, values in watch.hidden.items()}
        return outputs

    @property
    def total_steps(self) -> int:
        """Number of steps taken in all tasks."""
        return self.task * self.setting.problem.steps + self.step

    def draw_parameters(self, purpose: str = "initial") -> Tensor:
        """Draw new initial parameters for the current task, shape ``(run, parameter)``.

        All arms of a seed get the same values.

        Args:
            purpose: another purpose gives other values.
        """
        drawn = []
        for seed in self.seeds:
            tensors = architecture.draw_initial(
                self.network, self.setting.network, seed, self.task, purpose
            )
            drawn.append(rows([tensors]).to(self.device, self.dtype))
        return self.per_run(torch.cat(drawn))

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return one random generator per seed, seeded by (seed, purpose, current task)."""
        starts = [int(generator(seed, purpose, self.task).integers(2**63)) for seed in self.seeds]
        return [torch.Generator(self.device).manual_seed(start) for start in starts]

    def reinitialize(self, mask: Tensor, values: Tensor, *, clears_means: bool = True) -> None:
        """Set some parameters.

        Args:
            mask: booleans of shape ``(parameter,)`` or ``(run, parameter)``.
            values: shape ``(run, parameter)``.
            clears_means: whether the optimizer's state for these parameters is cleared.
        """
        flat = self.parameters.flat.detach()
        flat.copy_(values.where(mask, flat))
        if clears_means:
            self.optimizer.reset_state(mask)

    def layer_mask(self, *layers: str) -> Tensor:
        """Select the parameters of some layers, booleans of shape ``(parameter,)``."""
        selected = {name: name.rpartition(".")[0] in layers for name in self.parameters.shapes}
        return self.per_parameter(selected).bool()

    def norm_mask(self) -> Tensor:
        """Select the parameters of norm layers, booleans of shape ``(parameter,)``."""
        norms = [
            name
            for name, layer in self.network.named_modules()
            if isinstance(layer, normalization.NORM_CLASSES)
        ]
        return self.layer_mask(*norms)

    def deviations(self) -> dict[str, float]:
        """Return the standard deviation of each tensor's initial values, by name; 0 if constant."""
        return architecture.initial_stds(self.network, self.setting.network)

    def per_parameter(self, values: Mapping[str, float]) -> Tensor:
        """Repeat a number of each tensor for its parameters, by name → ``(parameter,)``."""
        parts = [
            torch.full(shape, values[name], dtype=torch.float64).flatten()
            for name, shape in self.parameters.shapes.items()
        ]
        return torch.cat(parts).to(self.device, self.dtype)

    def per_run(self, values: Tensor) -> Tensor:
        """Repeat the values of each seed for its runs, ``(seed, …)`` → ``(run, …)``."""
        return values.index_select(0, self.seed_of)

    def hidden_shapes(self) -> dict[str, torch.Size]:
        """Return the shape of one sample's hidden activations, by layer."""
        blank = torch.zeros(2, *self.image)
        with torch.no_grad(), record_activations(self.network, {}) as hidden:
            self.network(blank)
        return {layer: values.shape[1:] for layer, values in hidden.items()}
