"""Losses and errors of each sample, for any leading dims."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """−log softmax of the label's output: ``(…, n, class)`` and ``(…, n)`` → ``(…, n)``."""
    return torch.nn.functional.cross_entropy(outputs.movedim(-1, 1), labels, reduction="none")


def mistakes(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest output is not the label's, else 0: ``(…, n, class)`` and ``(…, n)`` → ``(…, n)``."""
    return (outputs.argmax(dim=-1) != labels).to(outputs.dtype)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared difference of the one output and its target: ``(…, n, 1)`` and ``(…, n)`` → ``(…, n)``."""
    return (outputs.squeeze(-1) - targets).square()


class Loss(NamedTuple):
    """What is minimised, and the error that is reported."""

    loss: Callable[[Tensor, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]


KINDS = {
    "cross_entropy": Loss(cross_entropy, mistakes),
    "squared_error": Loss(squared_error, squared_error),
}
