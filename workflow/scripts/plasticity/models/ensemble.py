"""Many runs of one network at once: their parameters stacked, a forward pass as batched matrix products.

All parameters lie in one matrix, a row per run; the network's tensors are views into it. So the optimizer takes one
step over one tensor, a penalty can look at all weights at once, and a checkpoint is a copy of rows.
"""

import copy
import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from plasticity.models import activations, normalization

LANES = 16  # numbers in the widest vector: rows start at whole vectors, so that how one is rounded does not depend on its place
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
ELEMENTWISE = (*activations.MODULES, nn.GELU, nn.SiLU, nn.Sigmoid)


class QuadraticPenalty(NamedTuple):
    """The penalty strength · ½ ‖θ − target‖², whose gradient strength · (θ − target) needs no autograd.

    Attributes:
        strength: shape ``(run,)``.
        target: of shape ``(run, parameter)``; None is 0.
    """

    strength: Tensor
    target: Tensor | None = None


class Parameters:
    """The runs' parameters, stacked, and their gradients.

    Attributes:
        flat: all parameters, shape ``(run, parameter)``; a leaf, which penalties may look at.
        tensors: views into `flat` by name, shapes ``(run, …)``; leaves too, which the network computes with.
        padded, padded_gradient: what the optimizer works on, contiguous; `flat` and its gradient are their first columns.
    """

    def __init__(self, flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> None:
        """Copy `flat`, of shape ``(run, parameter)``, as the parameters of the given names and shapes, in that order."""
        width = flat.shape[1]
        self.padded = nn.functional.pad(flat.detach(), (0, -width % LANES))
        self.padded_gradient = torch.zeros_like(self.padded)
        self.shapes = shapes
        self.flat = self.padded[:, :width].requires_grad_()
        self.tensors = {
            name: part.requires_grad_() for name, part in self.split(self.padded[:, :width]).items()
        }
        self._slopes = self.split(self.padded_gradient[:, :width])
        self._slope: Tensor = self.padded_gradient[:, :width]
        self._noted: dict[str, _Noted] = {}

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """Views into a matrix of shape ``(run, parameter)`` by parameter, shapes ``(run, …)``."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = matrix.split(sizes, dim=1)
        return {
            name: part.unflatten(1, tuple(shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def bind(self, network: nn.Module) -> Callable[..., Tensor]:
        """The network with these parameters, as a function of all runs' inputs; arguments and shapes as the function `forward` has them.

        Nothing is swapped in and out at a call, and linear layers are noted, so that `gradient` can write theirs where it belongs: each
        call that autograd follows is to be followed by one of `gradient`.
        """
        if not broadcasts(network):
            return partial(forward, network, self.tensors)
        bound = copy.deepcopy(network)
        for name, layer in bound.named_modules():
            if isinstance(layer, nn.Linear):
                layer.forward = partial(self._linear, f"{name}.weight", f"{name}.bias")  # type: ignore[method-assign]
            elif isinstance(layer, nn.LayerNorm):
                own = {
                    "weight": self.tensors[f"{name}.weight"],
                    "bias": self.tensors[f"{name}.bias"],
                }
                shape = layer.normalized_shape
                stacked = partial(_stacked_layer_norm, normalized_shape=shape, **own, eps=layer.eps)
                layer.forward = stacked  # type: ignore[method-assign]

        def call(inputs: Tensor, watch: Watch | None = None) -> Tensor:
            if watch is None:
                outputs: Tensor = bound(inputs)
                return outputs
            with record_activations(bound, watch.masks) as hidden:
                outputs = bound(inputs)
            watch.hidden = {layer: _as_units(of_layer) for layer, of_layer in hidden.items()}
            return outputs

        return call

    def gradient(self, losses: Tensor, *penalties: Tensor | QuadraticPenalty) -> Tensor:
        """Each run's gradient of its own loss, shape ``(run, parameter)``: a view into `padded_gradient`.

        That of a noted linear layer is the product of its outputs' gradients and its inputs, written straight into its columns; autograd
        gives those of other layers and of penalties.

        Args:
            losses: of each sample, shape ``(run, n)``, by a bound network or from `tensors`; a run's loss is their mean.
            penalties: what is added to it, each of shape ``(run,)``, from `flat`, from `tensors`, from the network's hidden activations;
                or a `QuadraticPenalty`.

        Raises:
            RuntimeError: by the bound network, at its second call before this one.
        """
        noted, self._noted = self._noted, {}
        others = self.tensors.keys() - noted.keys() - {layer.bias for layer in noted.values()}
        wanted = [
            *(layer.outputs for layer in noted.values()),
            *(self.tensors[name] for name in others),
        ]
        sums = [
            penalty
            for penalty in penalties
            if isinstance(penalty, Tensor) and penalty.requires_grad
        ]
        leaves = (
            [self.flat, *(self.tensors[name] for name in self.tensors.keys() - others)]
            if sums
            else []
        )
        weights = [losses.new_full(losses.shape, 1 / losses.shape[1]), *map(torch.ones_like, sums)]
        found = torch.autograd.grad([losses, *sums], [*wanted, *leaves], weights, allow_unused=True)
        pulled = self._pull(
            [penalty for penalty in penalties if isinstance(penalty, QuadraticPenalty)]
        )
        for (weight, layer), delta in zip(noted.items(), found, strict=False):
            # products are added to what pulls: a pass over all parameters less
            self._slopes[weight].baddbmm_(delta.mT, layer.inputs, beta=pulled)
            if layer.bias in self._slopes:
                bias = self._slopes[layer.bias]
                bias.add_(delta.sum(1)) if pulled else torch.sum(delta, 1, out=bias)
        for name, part in zip(others, found[len(noted) :], strict=False):
            slope = self._slopes[name] if pulled else self._slopes[name].zero_()
            if part is not None:
                slope += part
        slopes = [self._slope, *(self._slopes[name] for name in self.tensors.keys() - others)]
        for slope, part in zip(slopes, found[len(wanted) :], strict=False):
            if part is not None:
                slope += part
        return self._slope

    def _pull(self, pulls: Sequence[QuadraticPenalty]) -> bool:
        """Let the gradient begin as that of the pulls; whether there are any."""
        flat = self.flat.detach()
        for place, (strength, target) in enumerate(pulls):
            slope = torch.empty_like(self._slope) if place else self._slope
            if target is None:
                torch.mul(flat, strength[:, None], out=slope)
            else:  # exactly 0 at the target: of a weight that learns nothing, Adam would make steps of what is left by rounding
                torch.sub(flat, target, out=slope).mul_(strength[:, None])
            if place:
                self._slope += slope
        return bool(pulls)

    def _linear(self, weight: str, bias: str, inputs: Tensor) -> Tensor:
        """A linear layer of these parameters whose weights autograd does not see: noted instead."""
        W, b = self.tensors[weight], self.tensors.get(bias)
        if torch.is_autocast_enabled(
            inputs.device.type
        ):  # only autograd knows what such a product was computed in
            return _stacked_linear(inputs, W, b)
        outputs = _stacked_linear(
            inputs, W.detach(), None if b is None else b.detach()
        ).requires_grad_()
        if torch.is_grad_enabled():
            if weight in self._noted:
                raise RuntimeError(
                    "a bound network was called twice before `gradient`: look at outputs under `torch.no_grad`"
                )
            self._noted[weight] = _Noted(bias, inputs.detach(), outputs)
        return outputs


def rows(runs: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """One row of parameters per run, shape ``(run, parameter)``, from each run's tensors by name."""
    return torch.stack(
        [torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in runs]
    )


def make_deterministic() -> None:
    """The same bytes on any number of cores and wherever arrays lie in memory; no denormal numbers, so no slow weights near zero.

    To be called before anything is multiplied. Intel's MKL is fast by default, and on an AMD processor rounds as an array's address has
    it; told to reproduce itself, it costs at most a tenth more. glibc gives large arrays back to the system, and asks for them anew at
    the price of a page fault every 4 kB: where it keeps them, curvature of convolutions takes half the time.
    """
    os.environ["MKL_CBWR"] = "AUTO"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@dataclass
class Watch:
    """Hidden activations, while a network is called.

    Attributes:
        gates: what a layer's activations are multiplied by before they go on, by layer, shapes ``(run, n, …)``.
        hidden: what went on, by layer, shapes ``(run, row, unit)``: a convolution's units are its channels, with a row for every place
            of every image; a transformer's tokens are rows, too.
    """

    masks: Mapping[str, Tensor] = field(default_factory=dict)
    hidden: dict[str, Tensor] = field(default_factory=dict)


def forward(
    network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor, watch: Watch | None = None
) -> Tensor:
    """Outputs of all runs, each on its own inputs.

    Linear layers with layer norms and element-wise functions between them are batched matrix products. Any other network is vmapped on
    a GPU; on a CPU, whose grouped convolutions are slower than single ones, its runs go one after the other.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, …)``.
        watch: whose gates are used, and whose hidden activations are replaced.

    Returns:
        Shape ``(run, n, …)``.
    """

    def one(
        tensors: dict[str, Tensor], inputs: Tensor, masks: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if watch is None:
            return functional_call(network, tensors, (inputs,)), {}
        with record_activations(network, masks) as hidden:
            return functional_call(network, tensors, (inputs,)), hidden

    masks = {} if watch is None else dict(watch.masks)
    hidden: dict[str, Tensor]
    if broadcasts(network):
        with _LockStep():
            outputs, hidden = one(tensors, inputs, masks)
    elif inputs.device.type != "cpu":
        outputs, hidden = torch.vmap(one)(tensors, inputs, masks)
    else:
        runs = zip(
            _unbound(tensors, len(inputs)),
            inputs.unbind(),
            _unbound(masks, len(inputs)),
            strict=True,
        )
        found = [one(*of_run) for of_run in runs]
        outputs = torch.stack([of_run for of_run, _ in found])
        hidden = {
            layer: torch.stack([of_run[layer] for _, of_run in found]) for layer in found[0][1]
        }
    if watch is not None:
        watch.hidden = {layer: _as_units(of_layer) for layer, of_layer in hidden.items()}
    return outputs


@contextmanager
def record_activations(
    network: nn.Module, masks: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """What the network's activations put out while it is called, keyed by the layer before each (a norm between them is none).

    Args:
        network: a plain module.
        masks: what they are multiplied by before they go on, by the same keys.

    Yields:
        The activations after their gates; filled at a call.
    """
    hidden: dict[str, Tensor] = {}
    layer = ""

    def note(name: str, module: nn.Module, outputs: Tensor) -> Tensor | None:
        nonlocal layer
        if isinstance(module, activations.MODULES):
            hidden[layer] = outputs * masks[layer] if layer in masks else outputs
            return hidden[layer]
        if next(module.parameters(recurse=False), None) is not None and not isinstance(
            module, normalization.LAYERS
        ):
            layer = name
        return None

    hooks = [
        module.register_forward_hook(
            lambda module, _, outputs, name=name: note(name, module, outputs)
        )
        for name, module in network.named_modules()
    ]
    try:
        yield hidden
    finally:
        for hook in hooks:
            hook.remove()


def _unbound(tensors: Mapping[str, Tensor], runs: int) -> list[dict[str, Tensor]]:
    """Each run's tensors, by name."""
    of_runs = zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
    return (
        [dict(zip(tensors, of_run, strict=True)) for of_run in of_runs] if tensors else [{}] * runs
    )


def _as_units(outputs: Tensor) -> Tensor:
    """Shape ``(run, n, unit)``, ``(run, n, channel, row, column)`` or ``(run, n, token, unit)`` → ``(run, row, unit)``."""
    return (outputs.movedim(2, -1) if outputs.ndim == 5 else outputs).flatten(1, -2)


def broadcasts(network: nn.Module) -> bool:
    """Whether every layer has parameters of its own and takes a leading dim of runs as it is, linear ones and layer norms replaced."""
    own = len(list(network.named_parameters(remove_duplicate=False))) == len(
        list(network.parameters())
    )
    return own and all(
        isinstance(layer, (nn.Sequential, nn.Linear, *ELEMENTWISE))
        or (isinstance(layer, nn.Flatten) and layer.start_dim < 0)
        or (
            isinstance(layer, nn.LayerNorm)
            and len(layer.normalized_shape) == 1
            and layer.bias is not None
        )
        for layer in network.modules()
    )


class _Noted(NamedTuple):
    """A linear layer's call: what its gradient is made of."""

    bias: str
    inputs: Tensor
    outputs: Tensor


class _LockStep(TorchFunctionMode):
    """Replaces functions that take one set of weights by those that take one per run."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _STACKED.get(func, func)(*args, **(kwargs or {}))


def _stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` with a weight per run; as weights times inputs, which is faster where inputs are few."""
    if (
        inputs.shape[1] == 1
    ):  # a lone run's lone sample would be another routine's, which rounds in another way
        return _stacked_linear(inputs.expand(-1, 2, -1), weight, bias)[:, :1]
    return (
        (weight @ inputs.mT).mT
        if bias is None
        else torch.baddbmm(bias[..., None], weight, inputs.mT).mT
    )


def _stacked_layer_norm(
    inputs: Tensor, normalized_shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """`torch.nn.functional.layer_norm` with a weight and a bias per run.

    A product and a sum, not `torch.addcmul`, which may round the last few numbers of a tensor in another way.
    """
    return (
        nn.functional.layer_norm(inputs, normalized_shape, eps=eps) * weight[:, None]
        + bias[:, None]
    )


_STACKED: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.functional.linear: _stacked_linear,
    nn.functional.layer_norm: _stacked_layer_norm,
}
