"""Many members of one network at once: their parameters stacked, a forward pass as batched matrix products.

All parameters lie in one matrix, a row per member; the network's tensors are views into it. So the optimizer takes one
step over one tensor, a penalty can look at all weights at once, and a checkpoint is a copy of rows.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from plasticity import activations

LANES = 16  # numbers in the widest vector: rows start at whole vectors, so that how one is rounded does not depend on its place
ELEMENTWISE = (*activations.MODULES, nn.GELU, nn.SiLU, nn.Sigmoid)


class Pull(NamedTuple):
    """The penalty strength · ½ ‖θ − target‖², whose gradient strength · (θ − target) needs no autograd.

    Attributes:
        strength: shape ``(member,)``.
        target: of shape ``(member, parameter)``, or what broadcasts to it.
    """

    strength: Tensor
    target: Tensor


class Parameters:
    """The members' parameters, stacked, and their gradients.

    Attributes:
        flat: all parameters, shape ``(member, parameter)``; a leaf, which penalties may look at.
        tensors: views into `flat` by name, shapes ``(member, …)``; leaves too, which the network computes with.
        padded, padded_gradient: what the optimizer works on, contiguous; `flat` and its gradient are their first columns.
    """

    def __init__(self, flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> None:
        """Copy `flat`, of shape ``(member, parameter)``, as the parameters of the given names and shapes, in that order."""
        width = flat.shape[1]
        self.padded = nn.functional.pad(flat.detach(), (0, -width % LANES))
        self.padded_gradient = torch.zeros_like(self.padded)
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        parts, slopes = (matrix[:, :width].split(sizes, dim=1) for matrix in (self.padded, self.padded_gradient))
        self.flat = self.padded[:, :width].requires_grad_()
        self.tensors = {
            name: part.unflatten(1, tuple(shape)).requires_grad_() for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        self._slopes = {name: slope.unflatten(1, self.tensors[name].shape[1:]) for name, slope in zip(shapes, slopes, strict=True)}
        self._leaves = [self.flat, *self.tensors.values()]
        self._all_slopes: list[Tensor] = [self.padded_gradient[:, :width], *self._slopes.values()]
        self._noted: dict[str, _Noted] = {}

    def bind(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network with these parameters, as a function of all members' inputs; shapes as the function `forward` has them.

        Nothing is swapped in and out at a call, and linear layers are noted, so that `gradient` can write theirs where it belongs: each
        call that autograd follows is to be followed by one of `gradient`.
        """
        if not broadcasts(network):
            return lambda inputs: forward(network, self.tensors, inputs)
        bound = copy.deepcopy(network)
        for name, layer in bound.named_modules():
            if isinstance(layer, nn.Linear):
                layer.forward = partial(self._linear, f"{name}.weight", f"{name}.bias")  # type: ignore[method-assign]
            elif isinstance(layer, nn.LayerNorm):
                own = {"weight": self.tensors[f"{name}.weight"], "bias": self.tensors[f"{name}.bias"]}
                shape = layer.normalized_shape
                layer.forward = partial(_stacked_layer_norm, normalized_shape=shape, **own, eps=layer.eps)  # type: ignore[method-assign]
        return bound

    def gradient(self, losses: Tensor, penalties: Tensor | Pull | None = None) -> Tensor:
        """Each member's gradient of its own loss, shape ``(member, parameter)``: a view into `padded_gradient`.

        That of a noted linear layer is the product of its outputs' gradients and its inputs, written straight into its columns; autograd
        gives those of other layers and of penalties.

        Args:
            losses: of each sample, shape ``(member, n)``, by a bound network or from `tensors`; a member's loss is their mean.
            penalties: what is added to it, shape ``(member,)``, from `flat`, from `tensors`, or from both; or a `Pull`.

        Raises:
            RuntimeError: by the bound network, at its second call before this one.
        """
        noted, self._noted = self._noted, {}
        others = self.tensors.keys() - noted.keys() - {layer.bias for layer in noted.values()}
        wanted = [*(layer.outputs for layer in noted.values()), *(self.tensors[name] for name in others)]
        found = torch.autograd.grad(losses, wanted, losses.new_full(losses.shape, 1 / losses.shape[1]), allow_unused=True)
        for (weight, layer), delta in zip(noted.items(), found, strict=False):
            torch.bmm(delta.mT, layer.inputs, out=self._slopes[weight])
            if layer.bias in self._slopes:
                torch.sum(delta, 1, out=self._slopes[layer.bias])
        for name, part in zip(others, found[len(noted) :], strict=True):
            self._slopes[name].zero_() if part is None else self._slopes[name].copy_(part)
        if isinstance(penalties, Pull):
            self._all_slopes[0] += penalties.strength[:, None] * (self.flat.detach() - penalties.target)
        elif penalties is not None:
            for slope, part in zip(self._all_slopes, torch.autograd.grad(penalties.sum(), self._leaves, allow_unused=True), strict=True):
                if part is not None:
                    slope += part
        gradient: Tensor = self._all_slopes[0]
        return gradient

    def _linear(self, weight: str, bias: str, inputs: Tensor) -> Tensor:
        """A linear layer of these parameters whose weights autograd does not see: noted instead."""
        W, b = self.tensors[weight], self.tensors.get(bias)
        if torch.is_autocast_enabled(inputs.device.type):  # only autograd knows what such a product was computed in
            return _stacked_linear(inputs, W, b)
        outputs = _stacked_linear(inputs, W.detach(), None if b is None else b.detach()).requires_grad_()
        if torch.is_grad_enabled():
            if weight in self._noted:
                raise RuntimeError("a bound network was called twice before `gradient`: look at outputs under `torch.no_grad`")
            self._noted[weight] = _Noted(bias, inputs.detach(), outputs)
        return outputs


def rows(members: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """One row of parameters per member, shape ``(member, parameter)``, from each member's tensors by name."""
    return torch.stack([torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in members])


def settle() -> None:
    """One thread and no denormal numbers: the same bytes on any number of cores, and no slow weights near zero."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def forward(network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Outputs of all members, each on its own inputs.

    Linear layers with layer norms and element-wise functions between them are batched matrix products. Any other network is vmapped on
    a GPU; on a CPU, whose grouped convolutions are slower than single ones, its members go one after the other.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(member, …)``.
        inputs: shape ``(member, n, …)``.

    Returns:
        Shape ``(member, n, …)``.
    """

    def one(tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, tensors, (inputs,))
        return outputs

    if broadcasts(network):
        with _LockStep():
            return one(tensors, inputs)
    if inputs.device.type != "cpu":
        outputs: Tensor = torch.vmap(one)(tensors, inputs)
        return outputs
    members = zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
    return torch.stack([one(dict(zip(tensors, member, strict=True)), x) for member, x in zip(members, inputs.unbind(), strict=True)])


def broadcasts(network: nn.Module) -> bool:
    """Whether every layer has parameters of its own and takes a leading dim of members as it is, linear ones and layer norms replaced."""
    own = len(list(network.named_parameters(remove_duplicate=False))) == len(list(network.parameters()))
    return own and all(
        isinstance(layer, (nn.Sequential, nn.Linear, *ELEMENTWISE))
        or (isinstance(layer, nn.Flatten) and layer.start_dim < 0)
        or (isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1 and layer.bias is not None)
        for layer in network.modules()
    )


class _Noted(NamedTuple):
    """A linear layer's call: what its gradient is made of."""

    bias: str
    inputs: Tensor
    outputs: Tensor


class _LockStep(TorchFunctionMode):
    """Replaces functions that take one set of weights by those that take one per member."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _STACKED.get(func, func)(*args, **(kwargs or {}))


def _stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` with a weight per member; as weights times inputs, which is faster where inputs are few."""
    if inputs.shape[1] == 1:  # a lone member's lone sample would be another routine's, which rounds in another way
        return _stacked_linear(inputs.expand(-1, 2, -1), weight, bias)[:, :1]
    return (weight @ inputs.mT).mT if bias is None else torch.baddbmm(bias[..., None], weight, inputs.mT).mT


def _stacked_layer_norm(inputs: Tensor, normalized_shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.layer_norm` with a weight and a bias per member.

    A product and a sum, not `torch.addcmul`, which may round the last few numbers of a tensor in another way.
    """
    return nn.functional.layer_norm(inputs, normalized_shape, eps=eps) * weight[:, None] + bias[:, None]


_STACKED: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.functional.linear: _stacked_linear,
    nn.functional.layer_norm: _stacked_layer_norm,
}
