"""Hessian–vector products of a chain of linear layers and element-wise functions.

For a small network, autograd spends most of the time of such a product on bookkeeping. The chain
rule, differentiated along a vector, needs a few matrix products per layer (Pearlmutter 1994,
Neural Computation 6:147, section 3). Of a layer, z = a Wᵀ + b are the outputs, a the inputs, δ the
gradient of the mean loss at z, and φ the function that follows. R is the derivative along a vector
(V, c):

- forward, R z = (R a) Wᵀ + a Vᵀ + c, and the next layer has R a₊ = φ′(z) ∘ R z;
- at the outputs, R δ = H (R z), with H the Hessian of the mean loss at the outputs;
- backward, R δ = φ′(z) ∘ ((R δ₊) W₊ + δ₊ V₊) + φ″(z) ∘ (δ₊ W₊) ∘ R z, with ₊ for the next layer;
- the product is (R δ)ᵀ a + δᵀ (R a) for W, and the sum of R δ over samples for b.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plasticity.curvature.batch_loss import BatchLoss
from plasticity.models.activations import ACTIVATIONS

# Functions with one output per input.
ELEMENTWISE = tuple(kind.module for kind in ACTIVATIONS.values() if kind.expansion == 1)


class Link(NamedTuple):
    """A linear layer of the chain on one batch, and the function after it.

    Attributes:
        name: of the layer.
        weight: W, shape ``(output, input)``.
        inputs: a, shape ``(n, input)``.
        deltas: δ, shape ``(n, output)``.
        slopes: φ′(z), shape ``(n, output)``; None for the last layer.
        bends: φ″(z) ∘ (δ₊ W₊), same shape; None if φ″ is zero, and for the last layer.
    """

    name: str
    weight: Tensor
    inputs: Tensor
    deltas: Tensor
    slopes: Tensor | None
    bends: Tensor | None


class ChainHessian:
    """The Hessian of the mean loss of a chain."""

    @torch.enable_grad()
    def __init__(self, batch: BatchLoss) -> None:
        """Run the network forward and backward once.

        Args:
            batch: a single network for which `is_chain` holds, its data and loss.
        """
        inputs, outputs, activations = _forward(batch)
        loss = batch.sample_losses(activations[-1]).mean()
        gradient = torch.autograd.grad(loss, outputs[-1], create_graph=True)[0]
        self._output_hessian = _rows_by_backward(gradient, outputs[-1])
        deltas = gradient.detach()
        slopes: Tensor | None = None
        bends: Tensor | None = None
        links: list[Link] = []
        for index, name in reversed(list(enumerate(batch.layers))):
            weight = batch.tensors[f"{name}.weight"].detach()
            links.insert(0, Link(name, weight, inputs[index], deltas, slopes, bends))
            if index:
                pulled = deltas @ weight
                slopes, second = _two_derivatives(activations[index - 1], outputs[index - 1])
                deltas, bends = slopes * pulled, None if second is None else second * pulled
        self._links = links

    def product(self, directions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply vectors by the Hessian.

        Args:
            directions: parts of the vectors by parameter name, shapes ``(vector, …)``. Parameters
                that are missing have zeros.

        Returns:
            The parts of the products by the same names.
        """
        R_inputs: list[Tensor | None] = [None]
        R_outputs = []
        for link in self._links:
            R_z = self._forward_derivative(link, R_inputs[-1], directions)
            R_outputs.append(R_z)
            R_inputs.append(R_z if link.slopes is None else R_z * link.slopes)

        R_deltas = (self._output_hessian @ R_outputs[-1][..., None]).squeeze(-1)
        products: dict[str, Tensor] = {}
        for index in reversed(range(len(self._links))):
            link = self._links[index]
            weight, bias = f"{link.name}.weight", f"{link.name}.bias"
            if weight in directions:
                products[weight] = R_deltas.mT @ link.inputs
                R_a = R_inputs[index]
                if R_a is not None:
                    products[weight] += link.deltas.mT @ R_a
            if bias in directions:
                products[bias] = R_deltas.sum(dim=-2)
            if index:
                R_pulled = R_deltas @ link.weight
                if weight in directions:
                    R_pulled += link.deltas @ directions[weight]
                before = self._links[index - 1]
                R_deltas = R_pulled if before.slopes is None else R_pulled * before.slopes
                if before.bends is not None:
                    R_deltas = R_deltas + before.bends * R_outputs[index - 1]
        return products

    def _forward_derivative(
        self, link: Link, R_a: Tensor | None, directions: Mapping[str, Tensor]
    ) -> Tensor:
        """Compute R z of a layer, shape ``(vector, n, output)``; R a is None if it is zero."""
        weight, bias = f"{link.name}.weight", f"{link.name}.bias"
        parts = []
        if weight in directions:
            parts.append(link.inputs @ directions[weight].mT)
        if R_a is not None:
            parts.append(R_a @ link.weight.mT)
        if bias in directions:
            parts.append(directions[bias][:, None])
        if not parts:
            vectors = len(next(iter(directions.values())))
            return link.deltas.new_zeros(vectors, *link.deltas.shape)
        return functools.reduce(torch.add, parts)


def is_chain(batch: BatchLoss) -> bool:
    """Check whether a batch is of one chain: linear layers, each followed by one function or none.

    The chain may begin by flattening its inputs. All its parameters are trainable.
    """
    network = batch.network
    if batch.run_shape or type(network) is not nn.Sequential:
        return False
    layers = list(network.named_children())
    if layers and type(layers[0][1]) is nn.Flatten:
        layers = layers[1:]
    elif batch.inputs.ndim != 2:
        return False
    linear = [name for name, layer in layers if type(layer) is nn.Linear]
    follows = [type(layer) for _, layer in layers if type(layer) is not nn.Linear]
    parameters = list(network.named_parameters(remove_duplicate=False))
    return (
        list(batch.layers) == linear
        and bool(layers)
        and layers[0][0] == linear[0]
        and all(kind in ELEMENTWISE for kind in follows)
        and sorted(batch.parameters_in(linear)) == sorted(name for name, _ in parameters)
    )


def _forward(batch: BatchLoss) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Run the chain, and cut its autograd graph before every linear layer.

    Returns:
        By layer, the inputs, the outputs and what the functions make of the outputs.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    activations: list[Tensor] = []
    values = batch.inputs
    for name, layer in batch.network.named_children():
        if isinstance(layer, nn.Linear):
            inputs.append(values.detach())
            weight, bias = (batch.tensors.get(f"{name}.{one}") for one in ("weight", "bias"))
            assert weight is not None  # every linear layer has one
            bias = None if bias is None else bias.detach()
            values = nn.functional.linear(inputs[-1], weight.detach(), bias).requires_grad_()
            outputs.append(values)
            values = values.clone()  # the next function may work in place
            activations.append(values)
        else:
            values = layer(values)
            if activations:
                activations[-1] = values
    # what the loss flattens or unflattens
    batch.output_shape = activations[-1].shape[1:]
    return inputs, outputs, activations


def _two_derivatives(activations: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Differentiate element-wise functions of some outputs once and twice; None if twice is 0."""
    first = torch.autograd.grad(activations.sum(), outputs, create_graph=True)[0]
    if not first.requires_grad:
        return first, None
    second = torch.autograd.grad(first.sum(), outputs, materialize_grads=True)[0]
    return first.detach(), second if second.any() else None


def _rows_by_backward(gradient: Tensor, outputs: Tensor) -> Tensor:
    """Differentiate the gradient at each sample's outputs, shape ``(n, output, output)``."""
    if not gradient.requires_grad:
        return outputs.new_zeros(*outputs.shape, outputs.shape[-1])
    rows = [
        torch.autograd.grad(entry.sum(), outputs, retain_graph=True, materialize_grads=True)[0]
        for entry in gradient.unbind(-1)
    ]
    return torch.stack(rows, dim=-2)
