"""Many members of one network at once: their parameters stacked, a forward pass as batched matrix products.

All parameters lie in one matrix, a row per member; the network's tensors are views into it. So the optimizer takes one
step over one tensor, a penalty can look at all weights at once, and a checkpoint is a copy of rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode


class Parameters:
    """The members' parameters, stacked.

    Attributes:
        flat: all parameters, shape ``(member, parameter)``; a leaf, which penalties may look at.
        tensors: views into `flat` by name, shapes ``(member, …)``; leaves too, which the network computes with.
    """

    def __init__(self, flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> None:
        """Take `flat`, of shape ``(member, parameter)``, as the parameters of the given names and shapes, in that order."""
        self.flat = flat.requires_grad_()
        parts = flat.detach().split([torch.Size(shape).numel() for shape in shapes.values()], dim=1)
        self.tensors = {
            name: part.unflatten(1, tuple(shape)).requires_grad_() for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def gradient(self, losses: Tensor) -> Tensor:
        """Each member's gradient of its own loss, shape ``(member, parameter)``.

        Args:
            losses: shape ``(member,)``, computed from `tensors`, from `flat`, or from both.
        """
        *parts, rest = torch.autograd.grad(losses.sum(), [*self.tensors.values(), self.flat], allow_unused=True)
        parts = [torch.zeros_like(tensor) if part is None else part for part, tensor in zip(parts, self.tensors.values(), strict=True)]
        gradient = torch.cat([part.flatten(1) for part in parts], dim=1)
        return gradient if rest is None else gradient.add_(rest)


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


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` with a weight per member."""
    return inputs @ weight.mT if bias is None else torch.baddbmm(bias[:, None], inputs, weight.mT)


class _LockStep(TorchFunctionMode):
    """Replaces functions that take one set of weights by those that take one per member."""

    STACKED: ClassVar[dict[object, Callable[..., Tensor]]] = {nn.functional.linear: _linear}

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        stacked: Callable[..., Any] = self.STACKED.get(func, func)
        return stacked(*args, **(kwargs or {}))
