"""The loss of a network on a batch: what every curvature operator differentiates.

One class serves a single network and an ensemble. Tensors of an ensemble have a leading run
dimension, written ``*run`` in the shapes below; a single network has none. The outputs of a sample
may have any shape; operators see them as one dimension.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.curvature.blocks import layer_parameters
from plasticity.errors import StudyError
from plasticity.models.ensemble import forward, is_batchable

# Per-sample loss: outputs (*run, n, …) and targets (*run, n, …) → (*run, n).
Loss = Callable[[Tensor, Tensor], Tensor]
PRECISIONS = (torch.float32, torch.float64)


class BatchLoss:
    """A network with its parameters, a batch, and a loss per sample.

    Attributes:
        network: module that maps inputs to outputs.
        inputs: shape ``(*run, n, …)``.
        targets: shape ``(*run, n, …)``.
        loss: per-sample loss, called as ``loss(outputs, targets)``.
        stacked: parameters of several runs by name, or None for the network's own.
        substitutes: parameters and buffers by name that replace those of a single network, or None.
        tensors: the parameters in use by name, shapes ``(*run, …)``.
        run_shape: ``(run,)`` with stacked parameters, else ``()``.
        sample_dim: index of the sample dimension, which follows the run dimension.
        output_shape: shape of the outputs of one sample, known after the first call of `outputs`.
        layers: names of the trainable parameters of each layer.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        stacked: Mapping[str, Tensor] | None = None,
        substitutes: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Collect network, batch and loss.

        Raises:
            StudyError: if parameters are stacked but the network cannot compute runs together, or
                if there is nothing to differentiate.
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
        self.substitutes = substitutes
        self.tensors: dict[str, Tensor] = dict(
            network.named_parameters() if stacked is None else stacked
        )
        if substitutes is not None:
            self.tensors = {name: substitutes[name] for name in self.tensors}
        self.run_shape = torch.Size() if stacked is None else inputs.shape[:1]
        self.sample_dim = len(self.run_shape)
        self.output_shape = torch.Size()
        self.layers = layer_parameters(network)
        self._check_differentiable()

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

    def _check_differentiable(self) -> None:
        """Raise if autograd cannot differentiate the loss with respect to parameters."""
        if isinstance(self.network, torch.jit.ScriptModule):
            raise StudyError(
                "curvature needs a Python module, and this one is scripted: "
                "give the module that was scripted"
            )
        if not self.layers:
            raise StudyError(
                "the network has no trainable parameter, so it has no curvature: "
                "set requires_grad of the parameters that it is about"
            )
        if self.samples == 0:
            raise StudyError("the batch has no sample, so it has no curvature: give at least one")
        for name in self.parameters_in(self.layers):
            dtype = self.tensors[name].dtype
            if dtype not in PRECISIONS:
                raise StudyError(
                    f"curvature needs parameters in float32 or float64, and {name} is {dtype}: "
                    "call network.float() or network.double()"
                )
        if torch.is_inference_mode_enabled():
            raise StudyError(
                "curvature needs gradients, and torch.inference_mode() allows none: leave it"
            )
        if torch.is_autocast_enabled(self.inputs.device.type):
            raise StudyError(
                "curvature needs full precision, and torch.autocast lowers it: leave its context"
            )

    def to_float32(self) -> "BatchLoss":
        """Copy everything to float32; integer inputs and targets stay as they are."""
        inputs = self.inputs.float() if self.inputs.is_floating_point() else self.inputs
        targets = self.targets.float() if self.targets.is_floating_point() else self.targets
        if self.stacked is not None:
            stacked = {
                name: tensor.detach().float().requires_grad_()
                for name, tensor in self.tensors.items()
            }
            network = copy.deepcopy(self.network).float()
            return BatchLoss(network, inputs, targets, self.loss, stacked)
        # The network itself is not copied, because some modules refuse that.
        substitutes = {
            name: tensor.detach().float().requires_grad_(tensor.requires_grad)
            for name, tensor in self.tensors.items()
        }
        for name, buffer in self.network.named_buffers():
            substitutes[name] = buffer.float() if buffer.is_floating_point() else buffer
        return BatchLoss(self.network, inputs, targets, self.loss, substitutes=substitutes)

    def outputs(self, inputs: Tensor | None = None) -> Tensor:
        """Compute the outputs with their autograd graph.

        Args:
            inputs: by default those of the batch.

        Returns:
            Shape ``(*run, n, output)``: outputs of any shape are flattened.

        Raises:
            StudyError: the network does not return one tensor with a row per sample.
        """
        inputs = self.inputs if inputs is None else inputs
        with torch.enable_grad():
            outputs = self._call_network(inputs)
            self._check_outputs(outputs, inputs.shape[: self.sample_dim + 1])
            self.output_shape = outputs.shape[self.sample_dim + 1 :]
            if len(self.output_shape) == 1:
                return outputs
            return outputs.reshape(*inputs.shape[: self.sample_dim + 1], -1)

    def _call_network(self, inputs: Tensor) -> Tensor:
        """Call the network with the parameters in use."""
        if self.stacked is not None:
            return forward(self.network, self.tensors, inputs)
        if self.substitutes is not None:
            return cast(Tensor, functional_call(self.network, dict(self.substitutes), (inputs,)))
        return cast(Tensor, self.network(inputs))

    def _check_outputs(self, outputs: object, expected: torch.Size) -> None:
        """Raise if outputs are not one tensor with a row per sample."""
        if not isinstance(outputs, Tensor):
            raise StudyError(
                f"curvature needs a network that returns one tensor, and this one returns a "
                f"{type(outputs).__name__}: wrap it in a module that returns the outputs that the "
                "loss takes"
            )
        if outputs.shape[: len(expected)] != expected:
            raise StudyError(
                f"curvature needs outputs with samples in front, shape {_with_more(expected)}, and "
                f"this network returns {tuple(outputs.shape)} for inputs of shape "
                f"{tuple(self.inputs.shape)}"
            )

    def flat_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each sample from flat outputs.

        Args:
            outputs: shape ``(*run, n, output)``.
            targets: shape ``(*run, n, …)``.

        Returns:
            Shape ``(*run, n)``, with its autograd graph.
        """
        with torch.enable_grad():
            return self.loss(self.unflatten(outputs), targets)

    def unflatten(self, outputs: Tensor) -> Tensor:
        """Give flat outputs ``(*run, n, output)`` the shape that the network returned."""
        if len(self.output_shape) == 1:
            return outputs
        return outputs.reshape(*outputs.shape[:-1], *self.output_shape)

    def sample_losses(self, outputs: Tensor) -> Tensor:
        """Compute the loss of each sample from flat outputs, shape ``(*run, n)``."""
        return self.flat_loss(outputs, self.targets)

    def part_losses(self, samples: Tensor) -> Tensor:
        """Compute the losses of some samples as if there were no others.

        Args:
            samples: indices of the samples.

        Returns:
            Shape ``(*run, len(samples))``.
        """
        inputs = self.inputs.index_select(self.sample_dim, samples)
        targets = self.targets.index_select(self.sample_dim, samples)
        return self.flat_loss(self.outputs(inputs), targets)

    def mean_loss(self) -> Tensor:
        """Sum the mean losses of all runs.

        Runs share no parameters, so the gradient of this sum holds the gradient of each run.
        """
        with torch.enable_grad():
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


def _with_more(shape: torch.Size) -> str:
    """Write a shape that has any further dims: ``(8, …)``."""
    return f"({', '.join(map(str, shape))}, …)"
