"""Many members of one network at once: their parameters stacked, a forward pass as batched matrix products.

All parameters lie in one matrix, a row per member; the network's tensors are views into it. So the optimizer takes one
step over one tensor, a penalty can look at all weights at once, and a checkpoint is a copy of rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

LANES = 16  # numbers in the widest vector: rows start at whole vectors, so that how one is rounded does not depend on its place


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
        self._slopes = {
            id(tensor): slope.unflatten(1, tensor.shape[1:]) for tensor, slope in zip(self.tensors.values(), slopes, strict=True)
        }
        self._linears: list[_Linear] = []

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """As the function `forward`, with linear layers noted, so that `gradient` can write theirs where it belongs."""
        self._linears = []
        with _LockStep(self._linears):
            outputs: Tensor = functional_call(network, self.tensors, (inputs,))
        return outputs

    def gradient(self, losses: Tensor) -> Tensor:
        """Each member's gradient of its own loss, shape ``(member, parameter)``: a view into `padded_gradient`.

        A noted linear layer's is the product of its outputs' gradients and its inputs, written straight into its columns; all else
        (other layers, penalties) comes from autograd and is added.

        Args:
            losses: shape ``(member,)``, computed from `tensors`, from `flat`, or from both.
        """
        linears, self._linears = self._linears, []
        wanted = [*(linear.outputs for linear in linears), *self.tensors.values(), self.flat]
        found = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
        deltas, parts, rest = found[: len(linears)], found[len(linears) : -1], found[-1]
        written: set[int] = set()
        with torch.no_grad():
            for linear, delta in zip(linears, deltas, strict=True):
                self._write(written, linear.weight, torch.bmm, delta.mT, linear.inputs)
                if linear.bias is not None:
                    self._write(written, linear.bias, torch.sum, delta, 1)
            for tensor, part in zip(self.tensors.values(), parts, strict=True):
                if part is not None:
                    self._write(written, tensor, torch.mul, part, 1.0)
                elif id(tensor) not in written:
                    self._slopes[id(tensor)].zero_()
        gradient = self.padded_gradient[:, : self.flat.shape[1]]
        return gradient if rest is None else gradient.add_(rest)

    def _write(self, written: set[int], tensor: Tensor, product: Callable[..., Tensor], *factors: object) -> None:
        """Put a product where a tensor's gradient belongs, or add it to what is there already."""
        slope = self._slopes[id(tensor)]
        if id(tensor) in written:
            slope.add_(product(*factors))
        else:
            product(*factors, out=slope)
            written.add(id(tensor))


def rows(members: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """One row of parameters per member, shape ``(member, parameter)``, from each member's tensors by name."""
    return torch.stack([torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in members])


def settle() -> None:
    """One thread and no denormal numbers: the same bytes on any number of cores, and no slow weights near zero."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def forward(network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Outputs of all members, each on its own inputs.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(member, …)``.
        inputs: shape ``(member, n, …)``.

    Returns:
        Shape ``(member, n, …)``.
    """
    with _LockStep():
        outputs: Tensor = functional_call(network, tensors, (inputs,))
    return outputs


class _Linear(NamedTuple):
    """A linear layer's call: what its gradient is made of."""

    weight: Tensor
    bias: Tensor | None
    inputs: Tensor
    outputs: Tensor


class _LockStep(TorchFunctionMode):
    """Replaces functions that take one set of weights by those that take one per member.

    Args:
        linears: where to note the calls of linear layers; autograd then stops at their weights.
    """

    def __init__(self, linears: list[_Linear] | None = None) -> None:
        super().__init__()
        self.linears = linears

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.linear:
            return self._linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.linears is None:
            return _stacked_linear(inputs, weight, bias)
        outputs = _stacked_linear(inputs, weight.detach(), None if bias is None else bias.detach())
        self.linears.append(_Linear(weight, bias, inputs, outputs.requires_grad_()))
        return outputs


def _stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear` with a weight per member."""
    return inputs @ weight.mT if bias is None else torch.baddbmm(bias[:, None], inputs, weight.mT)
