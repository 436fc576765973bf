"""Losses and errors of each sample, for any leading dims."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Compute −log softmax of the output at the label.

    Args:
        outputs: shape ``(…, n, class)``.
        labels: shape ``(…, n)``.

    Returns:
        Shape ``(…, n)``.
    """
    return torch.nn.functional.cross_entropy(outputs.movedim(-1, 1), labels, reduction="none")


def zero_one_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where the largest output is not at the label, else 0.

    Args:
        outputs: shape ``(…, n, class)``.
        labels: shape ``(…, n)``.

    Returns:
        Shape ``(…, n)``, in the dtype of `outputs`.
    """
    return (outputs.argmax(dim=-1) != labels).to(outputs.dtype)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the squared difference of a network's only output and its target.

    Args:
        outputs: shape ``(…, n, 1)``.
        targets: shape ``(…, n)``.

    Returns:
        Shape ``(…, n)``.
    """
    return (outputs.squeeze(-1) - targets).square()


class Loss(NamedTuple):
    """Functions of outputs and labels.

    Attributes:
        loss: what training minimises, per sample.
        error: what the outcomes report, per sample.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]


LOSSES = {
    "cross_entropy": Loss(cross_entropy, zero_one_error),
    "squared_error": Loss(squared_error, squared_error),
}
