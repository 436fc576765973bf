"""Gram matrices of an operator A = (1/n) Σ Jᵢᵀ Sᵢ Sᵢᵀ Jᵢ.

Jᵢ are the derivatives of the outputs of sample i. Sᵢ, shape ``(output, column)``, is what the
operator makes of the loss. With gᵢ = Jᵢᵀ Sᵢ, one vector per column, A has the nonzero eigenvalues
of the matrix K of all products gᵢ·gⱼ / n. K is a sum over layers, and `layer_calls` gives the share
of each layer. The cost is one forward pass, and one backward pass per column of S.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from plasticity.curvature.batch_loss import BatchLoss, Loss
from plasticity.curvature.layer_calls import (
    LayerCall,
    LinearCall,
    call_by_backward_passes,
    call_by_identity,
    has_identity,
    normal_like,
)
from plasticity.log import warn_once

# Outputs, targets and the loss → S, shape (*run, n, output, column).
Columns = Callable[[Tensor, Tensor, Loss], Tensor]


def loss_gradients(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Compute the gradient of each sample's loss at its outputs: S of the empirical Fisher.

    Args:
        outputs: shape ``(*run, n, output)``.
        targets: shape ``(*run, n, …)``.
        loss: per-sample loss.

    Returns:
        One column, shape ``(*run, n, output, 1)``.
    """
    total = loss(outputs, targets).sum()
    return torch.autograd.grad(total, outputs, retain_graph=True)[0][..., None]


class RecordedCall(NamedTuple):
    """A call of a layer in the forward pass.

    Attributes:
        inputs: of the layer.
        output_edge: where autograd finds the gradient at the outputs, even if a later layer
            changes the outputs in place.
        output_shape: shape of the outputs.
    """

    inputs: Tensor
    output_edge: GradientEdge
    output_shape: torch.Size


class GramMatrices(Mapping[str, Tensor]):
    """Gram matrix K of each layer, computed on access; `over` sums those of several layers.

    Attributes:
        outputs: of the network with their autograd graph, shape ``(*run, n, output)``.
        samples: n.
        rows: rows of each matrix, n·column.
    """

    def __init__(self, columns: Columns, batch: BatchLoss) -> None:
        """Run the forward pass.

        Args:
            columns: S of the operator.
            batch: network, parameters and data. Each layer acts on each sample alone, as batch
                norm does in eval mode.
        """
        self._batch = batch
        with _record_calls(batch.network, list(batch.layers)) as calls:
            self.outputs = batch.outputs()
        self._recorded = calls
        with torch.enable_grad():
            self._S = columns(self.outputs, batch.targets, batch.flat_loss)
        self.samples = self._S.shape[-3]
        self.rows = self.samples * self._S.shape[-1]

    def __getitem__(self, layer: str) -> Tensor:
        """Compute K of one layer: `over` of this layer alone."""
        return self.over([layer])

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.layers)

    def __len__(self) -> int:
        return len(self._batch.layers)

    def over(self, layers: Iterable[str]) -> Tensor:
        """Compute K of the block that some layers make.

        Returns:
            Symmetric and positive semi-definite, shape ``(*run, n·column, n·column)``, columns
            innermost.
        """
        K = self.outputs.detach().new_zeros(*self._batch.run_shape, self.rows, self.rows)
        for layer in layers:
            self._calls[layer].add_products(self._calls[layer], K)
        return K.div_(self.samples)

    def diagonal(self, layers: Iterable[str]) -> Tensor:
        """Compute the diagonal of `over` without the matrix: all gᵢ·gᵢ / n.

        Returns:
            Shape ``(*run, n·column)``.
        """
        squares = [self._calls[layer].squared_norms() for layer in layers]
        return cast(Tensor, sum(squares)).flatten(-2) / self.samples

    def products_with(self, other: "GramMatrices", layers: Iterable[str]) -> Tensor:
        """Compute all gᵢ·hⱼ / n with the gradients hⱼ of the same network on other samples.

        Args:
            other: with the same parameters and number of samples.
            layers: the layers to include.

        Returns:
            Shape ``(*run, n·column, n·column)``.
        """
        products = self.outputs.detach().new_zeros(*self._batch.run_shape, self.rows, other.rows)
        for layer in layers:
            self._calls[layer].add_products(other._calls[layer], products)
        return products.div_(self.samples)

    def gradient_products(self, gradient: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
        """Compute gᵢ·v / √n for a vector v of the parameters of some layers.

        Args:
            gradient: v by parameter name, shapes ``(*run, …)``.
            layers: the layers to include.

        Returns:
            Shape ``(*run, n·column)``.
        """
        products = [self._layer_products(gradient, layer) for layer in layers]
        return cast(Tensor, sum(products)).flatten(-2) / math.sqrt(self.samples)

    def _layer_products(self, gradient: Mapping[str, Tensor], layer: str) -> Tensor:
        """Compute the share of one layer in gᵢ·v, shape ``(*run, n, column)``."""
        names = self._batch.layers[layer]
        vectors = [gradient[name].flatten(self._batch.sample_dim) for name in names]
        return self._calls[layer].dot(vectors)

    @functools.cached_property
    def _calls(self) -> dict[str, LayerCall]:
        """Run the backward passes and describe the call of each layer."""
        with torch.enable_grad():
            calls = self._calls_by_identity(self._covered_layers())
            for name in self._refuted_layers(calls):
                del calls[name]
            self._warn_of_slow_layers([layer for layer in self if layer not in calls])
            for name, parameters in self._batch.layers.items():
                if name not in calls:
                    tensors = [self._batch.tensors[parameter] for parameter in parameters]
                    calls[name] = call_by_backward_passes(tensors, self.outputs, self._S)
        return calls

    def _calls_by_identity(self, layers: Sequence[str]) -> dict[str, LayerCall]:
        """Describe the calls of layers that identities cover."""
        deltas = self._output_gradients(layers)
        calls: dict[str, LayerCall] = {}
        for name in layers:
            layer = self._batch.network.get_submodule(name)
            inputs = self._recorded[name][0].inputs
            calls[name] = call_by_identity(layer, inputs, deltas[name], self._batch.sample_dim)
        return calls

    def _refuted_layers(self, calls: Mapping[str, LayerCall]) -> list[str]:
        """List the layers whose identity does not give their gradients.

        An identity assumes that row i of a layer's inputs belongs to sample i. Shapes do not prove
        that: tokens may come first, or samples in another order. So a random combination
        Σ rᵢₖ gᵢₖ of all samples and columns is computed by autograd too, and its product with a
        random vector is compared. If any gᵢₖ is wrong, the two differ almost surely.
        """
        if not calls:
            return []
        batch = self._batch
        generator = torch.Generator().manual_seed(0)
        weights = normal_like(self._S[..., 0, :], generator)
        combination = (self.outputs * (self._S @ weights[..., None]).squeeze(-1)).sum()
        names = batch.parameters_in(calls)
        gradients = torch.autograd.grad(
            combination,
            [batch.tensors[name] for name in names],
            retain_graph=True,
            materialize_grads=True,
        )
        gradient_of = dict(zip(names, gradients, strict=True))
        refuted = []
        for layer, call in calls.items():
            rows = [gradient_of[name].flatten(batch.sample_dim) for name in batch.layers[layer]]
            if isinstance(call, LinearCall):
                vectors, products = call.random_products(generator)
            else:
                vectors = [normal_like(row, generator) for row in rows]
                products = call.dot(vectors)
            shares = [torch.linalg.vecdot(*pair) for pair in zip(rows, vectors, strict=True)]
            expected = torch.stack(shares).sum(dim=0)
            terms = weights * products
            difference = (terms.sum(dim=(-2, -1)) - expected).abs()
            scale = terms.abs().sum(dim=(-2, -1)) + expected.abs()
            # Parameters that are not finite make both NaN, which refutes nothing.
            if (difference > torch.finfo(scale.dtype).eps ** 0.5 * scale).any():
                refuted.append(layer)
        return refuted

    def _output_gradients(self, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute δ of some layers by one backward pass per column.

        Returns:
            By layer, shapes ``(*run, n, column, …)``.
        """
        if not layers:
            return {}
        edges = [self._recorded[name][0].output_edge for name in layers]
        passes = [
            torch.autograd.grad((self.outputs * column).sum(), edges, retain_graph=True)
            for column in self._S.unbind(-1)
        ]
        column_dim = self._batch.sample_dim + 1
        return {
            name: torch.stack(columns, dim=column_dim)
            for name, columns in zip(layers, zip(*passes, strict=True), strict=True)
        }

    def _warn_of_slow_layers(self, layers: Sequence[str]) -> None:
        """Log the layers without an identity."""
        if not layers:
            return
        network = self._batch.network
        names = [f"{name} ({type(network.get_submodule(name)).__name__})" for name in layers]
        warn_once(
            f"no identity covers {', '.join(names)}: "
            "their gradients are computed sample by sample, which is slower"
        )

    def _covered_layers(self) -> list[str]:
        """List the layers whose parameters are all covered by an identity.

        Such a layer is called once, has the samples in front, and shares no parameter.
        """
        uses = _count_uses(self.outputs)
        covered = []
        for name, parameters in self._batch.layers.items():
            calls = self._recorded[name]
            layer = self._batch.network.get_submodule(name)
            if (
                len(calls) == 1
                and _has_samples(calls[0].output_shape, self._batch.sample_dim, self.samples)
                and all(uses[id(self._batch.tensors[one])] <= 1 for one in parameters)
                and has_identity(layer, {one.rpartition(".")[2] for one in parameters})
            ):
                covered.append(name)
        return covered


def _has_samples(shape: torch.Size, sample_dim: int, samples: int) -> bool:
    """Check whether a shape has as many entries in the sample dimension as there are samples."""
    return len(shape) > sample_dim and shape[sample_dim] == samples


@contextmanager
def _record_calls(
    network: nn.Module, layers: Sequence[str]
) -> Iterator[dict[str, list[RecordedCall]]]:
    """Record the calls of some layers inside the context, by layer name."""
    calls: dict[str, list[RecordedCall]] = {name: [] for name in layers}

    def record(name: str, inputs: object, outputs: object) -> None:
        match inputs, outputs:
            case (Tensor() as a, *_), Tensor(requires_grad=True) as z:
                calls[name].append(RecordedCall(a.detach(), get_gradient_edge(z), z.shape))

    # `prepend`: other hooks may change what a layer puts out.
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _, inputs, outputs, name=name: record(name, inputs, outputs), prepend=True
        )
        for name in layers
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _count_uses(outputs: Tensor) -> Counter[int]:
    """Count how often the autograd graph of the outputs uses each leaf, by the leaf's id."""
    uses: Counter[int] = Counter()
    waiting = [outputs.grad_fn]
    visited = set(waiting)
    while waiting:
        for node, _ in getattr(waiting.pop(), "next_functions", ()):
            if hasattr(node, "variable"):
                uses[id(node.variable)] += 1
            elif node not in visited:
                visited.add(node)
                waiting.append(node)
    return uses
