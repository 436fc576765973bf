"""Gram matrices of an operator A = (1/n) Σ Jᵢᵀ Sᵢ Sᵢᵀ Jᵢ, from one forward pass and as many backward passes as S has columns.

Jᵢ are the derivatives of sample i's outputs, Sᵢ what the operator makes of them, shape ``(output, column)``. With gᵢ = Jᵢᵀ Sᵢ, a vector a
column, A has the nonzero eigenvalues of the matrix K of all products gᵢ·gⱼ / n. K is a sum over layers, and a layer's share follows from
its inputs a and from δ, what gᵢ is at its outputs:

- a linear layer has gᵢ = δᵢ ⊗ (aᵢ, 1), so gᵢ·gⱼ = (aᵢ·aⱼ + 1)(δᵢ·δⱼ), and no gradient of a sample is ever formed;
- on many tokens t, gᵢ = Σₜ δᵢₜ ⊗ (aᵢₜ, 1), so gᵢ·gⱼ = Σₛₜ (aᵢₛ·aⱼₜ + 1)(δᵢₛ·δⱼₜ); a convolution is a linear layer on patches;
- a norm, which puts out w x̂ + b, has gᵢ = (Σₜ δᵢₜ x̂ᵢₜ, Σₜ δᵢₜ), the sums over the places that share a unit's w and b. In batch norm x̂
  depends on the whole batch, whose mean and variance are constants here;
- learned positions, which are added to the tokens, have gᵢ = δᵢ;
- the gradients of any other layer, and of one that is called twice or shares parameters, are taken sample by sample.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

from plasticity.errors import StudyError
from plasticity.log import warn_once
from plasticity.models.architecture import Positions
from plasticity.models.ensemble import broadcasts, forward
from plasticity.models.normalization import BatchNorm

AT_ONCE = 2**20  # numbers of a temporary matrix: those that stay in a cache are made fastest


Loss = Callable[
    [Tensor, Tensor], Tensor
]  # of each sample: outputs (…, n, output) and targets (…, n) → (…, n)
Columns = Callable[
    [Tensor, Tensor, Loss], Tensor
]  # outputs, targets and the loss → S, shape (…, n, output, column)


class Call(NamedTuple):
    """A layer's call: inputs as tokens ``(…, n, token, number)``, gradients at its outputs ``(…, n, column, token, unit)``, a bias or none.

    A layer whose gradients are at hand has no inputs; those are in its one token's units.
    """

    inputs: Tensor | None
    deltas: Tensor
    bias: bool


class _Seen(NamedTuple):
    """A layer's call in the forward pass: its inputs; where gradients at its outputs are found, even if changed in place; their shape."""

    inputs: Tensor
    outputs: GradientEdge
    shape: torch.Size


class Grams(Mapping[str, Tensor]):
    """Shares of the layers in K, each made when it is asked for; those of several layers by `over`.

    Attributes:
        samples: n.
        rows: of each matrix, n · column.
    """

    def __init__(
        self,
        columns: Columns,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Call the network.

        Args:
            columns: S of the operator.
            network: its layers act on each sample alone, as batch norm does in eval mode.
            inputs: shape ``(n, …)``, or ``(run, n, …)`` with `tensors`.
            targets: shape ``(n, …)``, or ``(run, n, …)`` with `tensors`.
            loss: per-sample loss, shape ``(…, n)``.
            tensors: parameters of many runs by name, shapes ``(run, …)``, requiring gradients, in place of the network's own; for a
                network that broadcasts.

        Raises:
            StudyError: runs of a network that does not broadcast.
        """
        if tensors is not None and not broadcasts(network):
            raise StudyError("this network does not broadcast: its runs come one after the other")
        self._network, self._run, self._layers = network, tensors is not None, layers(network)
        self._tensors = dict(network.named_parameters()) if tensors is None else tensors
        self._seen: dict[str, list[_Seen]] = {name: [] for name in self._layers}

        def note(name: str, inputs: object, outputs: object) -> None:
            match inputs, outputs:
                case (Tensor() as a, *_), Tensor(requires_grad=True) as z:
                    self._seen[name].append(_Seen(a.detach(), get_gradient_edge(z), z.shape))

        hooks = [  # before others, which may change what a layer puts out
            network.get_submodule(name).register_forward_hook(
                lambda _, a, z, name=name: note(name, a, z), prepend=True
            )
            for name in self._layers
        ]
        try:
            with torch.enable_grad():
                self._outputs = (
                    network(inputs) if tensors is None else forward(network, dict(tensors), inputs)
                )
        finally:
            for hook in hooks:
                hook.remove()
        self._S = columns(self._outputs, targets, loss)
        self.samples, self.rows = self._S.shape[-3], self._S.shape[-3] * self._S.shape[-1]

    @functools.cached_property
    def _calls(self) -> dict[str, Call]:
        """Each layer's call: the backward passes, when they are needed for the first time."""
        network, seen, ruled = self._network, self._seen, self._ruled()
        ends = [seen[name][0].outputs for name in ruled]
        taken = (
            [
                torch.autograd.grad((self._outputs * s).sum(), ends, retain_graph=True)
                for s in self._S.unbind(-1)
            ]
            if ruled
            else []
        )
        deltas = {
            name: torch.stack(of_layer, dim=1 + self._run)
            for name, of_layer in zip(ruled, zip(*taken, strict=True), strict=True)
        }
        if strays := [name for name in self._layers if name not in ruled]:
            named = ", ".join(
                f"{name} ({type(network.get_submodule(name)).__name__})" for name in strays
            )
            warn_once(
                f"no identity covers {named}: these gradients are taken sample by sample, which is slower"
            )
        return {
            name: _call(network.get_submodule(name), seen[name][0].inputs, deltas[name], self._run)
            if name in ruled
            else _one_by_one([self._tensors[one] for one in own], self._outputs, self._S)
            for name, own in self._layers.items()
        }

    def _ruled(self) -> list[str]:
        """The layers of which an identity covers all parameters: called once, samples in front, and used by nothing else."""
        uses = _uses(self._outputs)
        return [
            name
            for name, own in self._layers.items()
            if len(self._seen[name]) == 1
            and self._seen[name][0].shape[self._run] == self.samples
            and all(uses[id(self._tensors[one])] <= 1 for one in own)
            and _has_rule(
                self._network.get_submodule(name), {one.rpartition(".")[2] for one in own}
            )
        ]

    def __getitem__(self, layer: str) -> Tensor:
        """Share of one layer, ``(n·column, n·column)`` with the column last, symmetric and positive semi-definite; with runs first."""
        return self.over([layer])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def over(self, names: Iterable[str]) -> Tensor:
        """Shares of several layers together: K of the block that they make."""
        calls = [self._calls[name] for name in names]
        K = calls[0].deltas.new_zeros(*calls[0].deltas.shape[: self._run], self.rows, self.rows)
        for call in calls:
            _add(K, call)
        return K.div_(self.samples)

    def along(self, gradient: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
        """Products gᵢ·v / √n with a vector v of parameters, by name, shapes ``(…)``; for some layers: shape ``(…, n·column)``."""
        found = cast(Tensor, sum(self._along(gradient, name) for name in names))
        return found.flatten(-2) / math.sqrt(self.samples)

    def _along(self, gradient: Mapping[str, Tensor], name: str) -> Tensor:
        """The products of one layer, shape ``(…, n, column)``."""
        call, parts = (
            self._calls[name],
            [gradient[own].flatten(int(self._run)) for own in self._layers[name]],
        )
        if call.inputs is None:
            return (call.deltas.squeeze(-2) @ torch.cat(parts, dim=-1)[..., None, :, None]).squeeze(
                -1
            )
        weight = parts[0].unflatten(-1, (call.deltas.shape[-1], -1))
        outputs = (call.inputs.flatten(-3, -2) @ weight.mT).unflatten(-2, call.inputs.shape[-3:-1])
        if call.bias:
            outputs = outputs + parts[1][..., None, None, :]
        products: Tensor = call.deltas * outputs[..., None, :, :]
        return products.sum(dim=(-2, -1))


def layers(network: nn.Module) -> dict[str, list[str]]:
    """Layers that have parameters which learn, in order, each with the names of its own; a shared one is that of the first that has it."""
    found: dict[str, list[str]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def _has_rule(layer: nn.Module, own: set[str]) -> bool:
    """Whether there is an identity for a layer with these parameters; a class made from a known one may compute anything."""
    if own != ({"weight", "bias"} if getattr(layer, "bias", None) is not None else {"weight"}):
        return False
    match layer:
        case nn.Conv2d():
            simple = (
                layer.groups == 1
                and not isinstance(layer.padding, str)
                and layer.padding_mode == "zeros"
            )
            return simple and type(layer) is nn.Conv2d
        case BatchNorm():
            return not layer.training and type(layer) is BatchNorm
    return type(layer) in (nn.Linear, Positions) or (
        type(layer) in (nn.LayerNorm, nn.GroupNorm) and "bias" in own
    )


def _uses(outputs: Tensor) -> Counter[int]:
    """How often each leaf is used on the way to outputs, by its id."""
    found: Counter[int] = Counter()
    waiting = [outputs.grad_fn]
    met = set(waiting)
    while waiting:
        for node, _ in getattr(waiting.pop(), "next_functions", ()):
            if hasattr(node, "variable"):
                found[id(node.variable)] += 1
            elif node not in met:
                met.add(node)
                waiting.append(node)
    return found


def _call(layer: nn.Module, inputs: Tensor, deltas: Tensor, run: bool) -> Call:
    """A layer's call in the one form that all have; inputs ``(…, n, …)`` and the gradients at its outputs, ``(…, n, column, …)``."""
    if isinstance(layer, nn.Conv2d):
        padding = cast(tuple[int, ...], layer.padding)  # other kinds have no rule
        patches = nn.functional.unfold(
            inputs, layer.kernel_size, layer.dilation, padding, layer.stride
        )
        return Call(patches.mT, deltas.flatten(-2).mT, layer.bias is not None)
    if isinstance(layer, nn.Linear):
        tokens = slice(1 + run, -1)
        inputs = (
            inputs[..., None, :]
            if inputs.ndim - run == 2
            else inputs.flatten(*_span(inputs, tokens))
        )
        deltas = (
            deltas[..., None, :]
            if deltas.ndim - run == 3
            else deltas.flatten(*_span(deltas, slice(2 + run, -1)))
        )
        return Call(inputs, deltas, layer.bias is not None)
    if isinstance(layer, Positions):
        return Call(None, deltas.flatten(2)[..., None, :], bias=False)
    plain = {
        name: torch.full_like(own, float(name == "weight"))
        for name, own in layer.named_parameters()
    }
    normal = functional_call(layer, plain, (inputs,)).detach().unsqueeze(1 + run)
    if isinstance(layer, nn.LayerNorm):
        deep = len(layer.normalized_shape)
        normal, deltas = normal.flatten(-deep), deltas.flatten(-deep)
    else:
        normal, deltas = normal.movedim(2, -1), deltas.movedim(2, -1)
    normal, deltas = (
        value.reshape(*value.shape[: 2 + run], -1, value.shape[-1]) for value in (normal, deltas)
    )
    rows = torch.cat([(deltas * normal).sum(-2), deltas.sum(-2)], dim=-1)
    return Call(None, rows[..., None, :], bias=False)


def _span(values: Tensor, dims: slice) -> tuple[int, int]:
    """First and last of some dims."""
    return dims.start, values.ndim + dims.stop - 1


def _one_by_one(own: Sequence[Tensor], outputs: Tensor, S: Tensor) -> Call:
    """The gradients of parameters, a backward pass for each sample and column, of all runs at once."""
    lead = outputs.ndim - 2
    products = (outputs[..., None, :] @ S).squeeze(-2)
    found = [
        torch.autograd.grad(one.sum(), own, retain_graph=True, materialize_grads=True)
        for one in products.flatten(lead).unbind(-1)
    ]
    rows = torch.stack(
        [torch.cat([slope.flatten(lead) for slope in slopes], dim=-1) for slopes in found], dim=lead
    )
    return Call(None, rows.unflatten(lead, products.shape[lead:])[..., None, :], bias=False)


def _add(K: Tensor, call: Call) -> None:
    """Add all products gᵢ·gⱼ of one layer to K, in pieces that a cache holds."""
    n, k, tokens, high = call.deltas.shape[-4:]
    if call.inputs is None:
        rows = call.deltas.flatten(-4, -3).flatten(-2)
        K += rows @ rows.mT
        return
    wide = call.inputs.shape[-1] + call.bias
    if (
        tokens**2 * (wide / k**2 + high) <= wide * high
    ):  # fewer products than with the gradients of its weights
        deltas = call.deltas.flatten(-4, -3)
        some = max(1, AT_ONCE // (k * K[..., 0, :].numel()))
        for s in range(tokens):
            for t in range(tokens):
                similar = call.inputs[..., s, :] @ call.inputs[..., t, :].mT + float(call.bias)
                for first in range(0, n, some):
                    piece = slice(first * k, (first + some) * k)
                    products = (
                        (deltas[..., piece, s, :] @ deltas[..., t, :].mT)
                        .unflatten(-1, (n, k))
                        .unflatten(-3, (-1, k))
                    )
                    products *= similar[..., first : first + some, None, :, None]
                    K[..., piece, :] += products.flatten(-4, -3).flatten(-2)
                    del products  # or it would live beside the next
        return
    inputs = nn.functional.pad(call.inputs, (0, 1), value=1.0) if call.bias else call.inputs
    for deltas in call.deltas.split(max(1, AT_ONCE // (n * k * wide)), dim=-1):
        rows = torch.einsum("...ikto,...itw->...ikow", deltas, inputs).flatten(-4, -3).flatten(-2)
        K += rows @ rows.mT
