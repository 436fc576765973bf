"""The loss of a network on a batch: what every curvature operator differentiates.

One class serves a single network and an ensemble. Tensors of an ensemble have a leading run
dimension, written ``*run`` in the shapes below; a single network has none.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plasticity.curvature.blocks import layer_parameters
from plasticity.errors import StudyError
from plasticity.models.ensemble import forward, is_batchable

# Per-sample loss: outputs (*run, n, output) and targets (*run, n, …) → (*run, n).
Loss = Callable[[Tensor, Tensor], Tensor]


class BatchLoss:
    """A network with its parameters, a batch, and a loss per sample.

    Attributes:
        network: module that maps inputs to outputs.
        inputs: shape ``(*run, n, …)``.
        targets: shape ``(*run, n, …)``.
        loss: per-sample loss, called as ``loss(outputs, targets)``.
        stacked: parameters of several runs by name, or None for the network's own.
        tensors: the parameters in use by name, shapes ``(*run, …)``.
        run_shape: ``(run,)`` with stacked parameters, else ``()``.
        sample_dim: index of the sample dimension, which follows the run dimension.
        layers: names of the trainable parameters of each layer.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        stacked: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Collect network, batch and loss.

        Raises:
            StudyError: if parameters are stacked but the network cannot compute runs together.
        """
        if stacked is not None and not is_batchable(network):
            raise StudyError(
                "this network does not broadcast over a run dimension: "
                "measure its runs one after another"
            )
        self.network = network
        self.inputs = inputs
        self.targets = targets
        self.loss = loss
        self.stacked = stacked
        self.tensors: dict[str, Tensor] = dict(
            network.named_parameters() if stacked is None else stacked
        )
        self.run_shape = torch.Size() if stacked is None else inputs.shape[:1]
        self.sample_dim = len(self.run_shape)
        self.layers = layer_parameters(network)

    @property
    def runs(self) -> int:
        """Number of runs, 1 for a single network."""
        return self.run_shape.numel()

    @property
    def samples(self) -> int:
        """Number of samples n."""
        return self.inputs.shape[self.sample_dim]

    @property
    def vector_like(self) -> Tensor:
        """A tensor with the dtype and device of vectors of parameters."""
        return next(iter(self.tensors.values()))

    def to_float32(self) -> "BatchLoss":
        """Copy everything to float32; integer inputs and targets stay as they are."""
        stacked = None
        if self.stacked is not None:
            stacked = {
                name: tensor.detach().float().requires_grad_()
                for name, tensor in self.tensors.items()
            }
        return BatchLoss(
            copy.deepcopy(self.network).float(),
            self.inputs.float() if self.inputs.is_floating_point() else self.inputs,
            self.targets.float() if self.targets.is_floating_point() else self.targets,
            self.loss,
            stacked,
        )

    def outputs(self, inputs: Tensor | None = None) -> Tensor:
        """Compute the outputs with their autograd graph, shape ``(*run, n, output)``."""
        inputs = self.inputs if inputs is None else inputs
        with torch.enable_grad():
            if self.stacked is None:
                return cast(Tensor, self.network(inputs))
            return forward(self.network, self.tensors, inputs)

    def sample_losses(self, outputs: Tensor) -> Tensor:
        """Compute the loss of each sample, shape ``(*run, n)``."""
        return self.loss(outputs, self.targets)

    def mean_loss(self) -> Tensor:
        """Sum the mean losses of all runs.

        Runs share no parameters, so the gradient of this sum holds the gradient of each run.
        """
        return self.sample_losses(self.outputs()).mean(dim=-1).sum()

    def gradient(self) -> dict[str, Tensor]:
        """Compute the gradient of the mean loss, by parameter name, shapes ``(*run, …)``."""
        names = self.parameters_in(self.layers)
        gradients = torch.autograd.grad(
            self.mean_loss(), [self.tensors[name] for name in names], materialize_grads=True
        )
        return dict(zip(names, gradients, strict=True))

    def parameters_in(self, layers: Iterable[str]) -> list[str]:
        """List the parameter names of some layers."""
        return [name for layer in layers for name in self.layers[layer]]

    def parameter_shape(self, name: str) -> torch.Size:
        """Return the shape of one run's parameter."""
        return self.tensors[name].shape[self.sample_dim :]

    def size_of(self, layers: Iterable[str]) -> int:
        """Count the parameters of some layers in one run."""
        return sum(self.parameter_shape(name).numel() for name in self.parameters_in(layers))

    def split(self, vectors: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Split vectors ``(vector, *run, d)`` into tensors with the shapes of parameters."""
        shapes = [self.parameter_shape(name) for name in names]
        parts = vectors.split([shape.numel() for shape in shapes], dim=-1)
        lead = vectors.shape[:-1]
        return [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def join(self, tensors: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        """Flatten tensors of parameter shapes, with any leading dims, into vectors ``(…, d)``."""
        flat = []
        for tensor, name in zip(tensors, names, strict=True):
            leading_dims = tensor.ndim - len(self.parameter_shape(name))
            flat.append(tensor.reshape(*tensor.shape[:leading_dims], -1))
        return torch.cat(flat, dim=-1)
