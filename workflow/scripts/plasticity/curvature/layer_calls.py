"""Per-sample gradients of one layer, in a form that makes their inner products cheap.

With gᵢ = Jᵢᵀ Sᵢ, one vector per column of Sᵢ (see `gram`), δᵢ is the part of gᵢ at the outputs of a
layer and aᵢ are the layer's inputs. The layer's share of gᵢ·gⱼ follows from δ and a alone:

- A linear layer has gᵢ = δᵢ ⊗ (aᵢ, 1), so gᵢ·gⱼ = (aᵢ·aⱼ + 1)(δᵢ·δⱼ). No per-sample gradient is
  formed.
- On tokens t, gᵢ = Σₜ δᵢₜ ⊗ (aᵢₜ, 1), so gᵢ·gⱼ = Σₛₜ (aᵢₛ·aⱼₜ + 1)(δᵢₛ·δⱼₜ). A convolution is a
  linear layer on patches.
- A normalization layer w x̂ + b has gᵢ = (Σₜ δᵢₜ x̂ᵢₜ, Σₜ δᵢₜ). The sums run over the positions that
  share one entry of w and b. In batch norm, the mean and variance of the batch are constants here.
- Learned positions are added to the tokens, so gᵢ = δᵢ.
- For any other layer, the gradients are computed sample by sample.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.models.architecture import Positions
from plasticity.models.normalization import BatchNorm

# Numbers in a temporary matrix: a size that stays in the processor's cache is fastest.
TEMPORARY_SIZE = 2**20


class LinearCall(NamedTuple):
    """Call of a linear layer on tokens, or of a convolution on patches.

    Attributes:
        inputs: aᵢₜ, shape ``(*run, n, token, input)``.
        deltas: δᵢₜ, shape ``(*run, n, column, token, unit)``.
        has_bias: whether the layer has a bias.
    """

    inputs: Tensor
    deltas: Tensor
    has_bias: bool

    def add_products(self, other: "LayerCall", K: Tensor) -> None:
        """Add all products gᵢ·hⱼ with the gradients hⱼ of another call to K.

        Args:
            other: this call, or a call of the same layer on as many other samples.
            K: shape ``(*run, n·column, n·column)``.
        """
        other = cast(LinearCall, other)
        columns, tokens, units = self.deltas.shape[-3:]
        width = self.inputs.shape[-1] + self.has_bias
        cost_by_tokens = tokens**2 * (width / columns**2 + units)
        cost_by_gradients = width * units
        if cost_by_tokens <= cost_by_gradients:
            self._add_products_by_tokens(other, K)
        else:
            self._add_products_by_gradients(other, K)

    def _add_products_by_tokens(self, other: "LinearCall", K: Tensor) -> None:
        """Add Σₛₜ (aᵢₛ·aⱼₜ + 1)(δᵢₛ·δⱼₜ), some rows of K at a time."""
        n, columns, tokens, _ = self.deltas.shape[-4:]
        deltas = self.deltas.flatten(-4, -3)
        other_deltas = other.deltas.flatten(-4, -3)
        samples = max(1, TEMPORARY_SIZE // (columns * K[..., 0, :].numel()))
        for s in range(tokens):
            for t in range(tokens):
                similarity = self.inputs[..., s, :] @ other.inputs[..., t, :].mT
                similarity = similarity + float(self.has_bias)
                for first in range(0, n, samples):
                    rows = slice(first * columns, (first + samples) * columns)
                    products = deltas[..., rows, s, :] @ other_deltas[..., t, :].mT
                    products = products.unflatten(-1, (n, columns)).unflatten(-3, (-1, columns))
                    products *= similarity[..., first : first + samples, None, :, None]
                    K[..., rows, :] += products.flatten(-4, -3).flatten(-2)
                    del products  # frees the memory before the next product is computed

    def _add_products_by_gradients(self, other: "LinearCall", K: Tensor) -> None:
        """Add products of the gradients of the weights, some units at a time."""
        n, columns, _, _ = self.deltas.shape[-4:]
        inputs = self._inputs_and_one()
        other_inputs = inputs if other is self else other._inputs_and_one()
        units = max(1, TEMPORARY_SIZE // (n * columns * inputs.shape[-1]))
        for deltas, other_deltas in zip(
            self.deltas.split(units, dim=-1), other.deltas.split(units, dim=-1), strict=True
        ):
            rows = _gradient_rows(inputs, deltas)
            other_rows = rows if other is self else _gradient_rows(other_inputs, other_deltas)
            K += rows @ other_rows.mT

    def _inputs_and_one(self) -> Tensor:
        """Append a constant input, whose weight is the bias, if there is a bias."""
        if not self.has_bias:
            return self.inputs
        return nn.functional.pad(self.inputs, (0, 1), value=1.0)

    def squared_norms(self) -> Tensor:
        """Compute gᵢ·gᵢ, shape ``(*run, n, column)``.

        With one token, gᵢ is an outer product, and its norm the product of two norms. With several,
        the gradients of some samples at a time are formed.
        """
        columns, tokens, units = self.deltas.shape[-3:]
        if tokens == 1:
            squares = self.inputs.square().sum(dim=(-2, -1)) + float(self.has_bias)
            return squares[..., None] * self.deltas.square().sum(dim=(-2, -1))
        sample_dim = self.inputs.ndim - 3
        numbers_per_sample = columns * units * self.inputs.shape[-1]
        samples = max(1, TEMPORARY_SIZE // numbers_per_sample)
        parts = []
        for inputs, deltas in zip(
            self.inputs.split(samples, sample_dim),
            self.deltas.split(samples, sample_dim),
            strict=True,
        ):
            weight_gradients = deltas.mT @ inputs.unsqueeze(-3)
            squares = weight_gradients.square().sum(dim=(-2, -1))
            if self.has_bias:
                squares = squares + deltas.sum(dim=-2).square().sum(dim=-1)
            parts.append(squares)
        return torch.cat(parts, dim=sample_dim)

    def dot(self, vectors: Sequence[Tensor]) -> Tensor:
        """Compute gᵢ·v for a vector v of parameters.

        Args:
            vectors: v as one flat tensor ``(*run, …)`` per parameter of the layer.

        Returns:
            Shape ``(*run, n, column)``.
        """
        weight = vectors[0].unflatten(-1, (self.deltas.shape[-1], -1))
        outputs = self.inputs.flatten(-3, -2) @ weight.mT
        outputs = outputs.unflatten(-2, self.inputs.shape[-3:-1])
        if self.has_bias:
            outputs = outputs + vectors[1][..., None, None, :]
        products: Tensor = self.deltas * outputs[..., None, :, :]
        return products.sum(dim=(-2, -1))

    def random_products(self, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """Draw a direction v of the parameters, and compute gᵢ·v.

        With v = u ⊗ (w, c), gᵢ·v = Σₜ (δᵢₜ·u)(aᵢₜ·w + c) costs far less than for other v. A matrix
        D that is not zero has uᵀ D (w, c) = 0 with probability zero, as for other v.

        Returns:
            v as `dot` takes it, and the products, shape ``(*run, n, column)``.
        """
        runs = self.inputs.shape[:-3]
        u = normal_like(self.deltas.new_empty(*runs, self.deltas.shape[-1]), generator)
        w = normal_like(self.inputs.new_empty(*runs, self.inputs.shape[-1]), generator)
        vectors = [(u[..., :, None] * w[..., None, :]).flatten(-2)]
        outputs = (self.inputs @ w[..., None, :, None]).squeeze(-1)
        if self.has_bias:
            c = normal_like(self.inputs.new_empty(*runs, 1), generator)
            vectors.append(c * u)
            outputs = outputs + c[..., None]
        of_units = (self.deltas @ u[..., None, None, :, None]).squeeze(-1)
        products: Tensor = (of_units * outputs[..., None, :]).sum(dim=-1)
        return vectors, products


class GradientCall(NamedTuple):
    """Call of a layer whose gradients gᵢ are formed.

    Attributes:
        gradients: gᵢ, shape ``(*run, n, column, parameter)``.
    """

    gradients: Tensor

    def add_products(self, other: "LayerCall", K: Tensor) -> None:
        """Add all products gᵢ·hⱼ to K; arguments as in `LinearCall.add_products`."""
        other = cast(GradientCall, other)
        K += self.gradients.flatten(-3, -2) @ other.gradients.flatten(-3, -2).mT

    def squared_norms(self) -> Tensor:
        """Compute gᵢ·gᵢ, shape ``(*run, n, column)``."""
        return self.gradients.square().sum(dim=-1)

    def dot(self, vectors: Sequence[Tensor]) -> Tensor:
        """Compute gᵢ·v; arguments and result as in `LinearCall.dot`."""
        vector = torch.cat(list(vectors), dim=-1)
        products: Tensor = (self.gradients @ vector[..., None, :, None]).squeeze(-1)
        return products


LayerCall = LinearCall | GradientCall


def normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Draw normal numbers with the shape, dtype and device of a tensor."""
    return torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values)


def _gradient_rows(inputs: Tensor, deltas: Tensor) -> Tensor:
    """Compute the gradients of some units' weights, shape ``(*run, n·column, unit·input)``."""
    gradients = torch.einsum("...ikto,...itw->...ikow", deltas, inputs)
    return gradients.flatten(-4, -3).flatten(-2)


def has_identity(layer: nn.Module, parameters: set[str]) -> bool:
    """Check whether an identity gives the products gᵢ·gⱼ of a layer.

    Args:
        layer: a layer of a network.
        parameters: names of its trainable parameters, as the layer calls them.

    Returns:
        False for a subclass of a known layer too, because it may compute anything.
    """
    has_bias = getattr(layer, "bias", None) is not None
    if parameters != ({"weight", "bias"} if has_bias else {"weight"}):
        return False
    kind = type(layer)
    if isinstance(layer, nn.Conv2d):
        zero_padded = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        return kind is nn.Conv2d and layer.groups == 1 and zero_padded
    if isinstance(layer, BatchNorm):
        return kind is BatchNorm and not layer.training
    if kind in (nn.LayerNorm, nn.GroupNorm):
        return has_bias
    return kind in (nn.Linear, Positions)


def call_by_identity(
    layer: nn.Module, inputs: Tensor, deltas: Tensor, sample_dim: int
) -> LayerCall:
    """Describe the call of a layer for which `has_identity` holds.

    Args:
        layer: the layer.
        inputs: of the layer, shape ``(*run, n, …)``.
        deltas: gradients at its outputs, shape ``(*run, n, column, …)``.
        sample_dim: index of the sample dimension.
    """
    if isinstance(layer, nn.Conv2d):
        return _convolution_call(layer, inputs, deltas)
    if isinstance(layer, nn.Linear):
        tokens = _with_one_token_dim(inputs, sample_dim + 1)
        token_deltas = _with_one_token_dim(deltas, sample_dim + 2)
        return LinearCall(tokens, token_deltas, layer.bias is not None)
    if isinstance(layer, Positions):
        return GradientCall(deltas.flatten(sample_dim + 2))
    return _normalization_call(layer, inputs, deltas, sample_dim)


def _convolution_call(layer: nn.Conv2d, inputs: Tensor, deltas: Tensor) -> LinearCall:
    """Describe a convolution as a linear layer on patches."""
    padding = cast(tuple[int, ...], layer.padding)  # `has_identity` excludes strings
    patches = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
    return LinearCall(patches.mT, deltas.flatten(-2).mT, layer.bias is not None)


def _normalization_call(
    layer: nn.Module, inputs: Tensor, deltas: Tensor, sample_dim: int
) -> GradientCall:
    """Compute the gradients of w and b of a normalization layer."""
    unit_parameters = {
        name: torch.full_like(parameter, float(name == "weight"))
        for name, parameter in layer.named_parameters()
    }
    normalized = functional_call(layer, unit_parameters, (inputs,)).detach()
    normalized = normalized.unsqueeze(sample_dim + 1)
    if isinstance(layer, nn.LayerNorm):
        shape_dims = len(layer.normalized_shape)
        normalized, deltas = normalized.flatten(-shape_dims), deltas.flatten(-shape_dims)
    else:
        normalized, deltas = normalized.movedim(2, -1), deltas.movedim(2, -1)
    normalized = _with_one_token_dim(normalized, sample_dim + 2)
    deltas = _with_one_token_dim(deltas, sample_dim + 2)
    return GradientCall(torch.cat([(deltas * normalized).sum(-2), deltas.sum(-2)], dim=-1))


def _with_one_token_dim(values: Tensor, leading_dims: int) -> Tensor:
    """Join all dims between the leading dims and the last into one; add one if there are none."""
    return values.reshape(*values.shape[:leading_dims], -1, values.shape[-1])


def call_by_backward_passes(
    parameters: Sequence[Tensor], outputs: Tensor, S: Tensor
) -> GradientCall:
    """Compute gᵢ = Jᵢᵀ Sᵢ by one backward pass per sample and column, for all runs together.

    Args:
        parameters: of one layer, shapes ``(*run, …)``.
        outputs: of the network, shape ``(*run, n, output)``.
        S: shape ``(*run, n, output, column)``.
    """
    sample_dim = outputs.ndim - 2
    products = (outputs[..., None, :] @ S).squeeze(-2)
    rows = []
    for product in products.flatten(sample_dim).unbind(-1):
        gradients = torch.autograd.grad(
            product.sum(), parameters, retain_graph=True, materialize_grads=True
        )
        flat = [gradient.flatten(sample_dim) for gradient in gradients]
        rows.append(torch.cat(flat, dim=-1))
    stacked = torch.stack(rows, dim=sample_dim)
    return GradientCall(stacked.unflatten(sample_dim, products.shape[sample_dim:]))
