"""Losses of torch that reduce a batch to one number, as losses of each sample."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.curvature.batch_loss import Loss
from plasticity.errors import StudyError

REDUCTIONS = ("mean", "batchmean", "sum")


class PerSampleLoss:
    """The per-sample form of a loss such as `nn.CrossEntropyLoss()` or `nn.MSELoss()`.

    With the reduction ``mean`` (``batchmean``), the mean of the samples' losses is the loss. With
    ``sum``, their sum is the loss. So for ``mean`` a sample's loss is the mean over its outputs,
    and else the sum over its outputs.
    """

    def __init__(self, loss: nn.Module, sample_dim: int) -> None:
        """Prepare a copy of the loss without a reduction.

        Args:
            loss: module with an attribute ``reduction``.
            sample_dim: index of the sample dimension of outputs and targets.

        Raises:
            StudyError: the reduction is unknown.
        """
        self._name = f"nn.{type(loss).__name__}"
        self._reduction = loss.reduction
        if self._reduction not in REDUCTIONS:
            raise StudyError(
                f"{self._name} has the unknown reduction {self._reduction!r}: use none, "
                f"{' or '.join(REDUCTIONS)}"
            )
        unreduced: Any = copy.copy(loss)
        unreduced.reduction = "none"
        self._loss, self._unreduced = loss, unreduced
        self._sample_dim = sample_dim

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each sample.

        Args:
            outputs: shape ``(*run, n, …)``.
            targets: shape ``(*run, n, …)``.

        Returns:
            Shape ``(*run, n)``; what the loss returns if that has no row per sample.
        """
        lead = outputs.shape[: self._sample_dim + 1]
        elements = self._call(self._unreduced, outputs, targets)
        if elements.shape[:1] != (lead.numel(),):
            return elements
        of_sample = elements.reshape(len(elements), -1)
        losses = of_sample.mean(dim=1) if self._reduction == "mean" else of_sample.sum(dim=1)
        return losses.view(lead)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Check that the samples' losses make up the loss.

        They do not if the loss divides by something else than the number of samples, for example by
        the sum of their class weights.

        Args:
            outputs: shape ``(*run, n, …)``.
            targets: shape ``(*run, n, …)``.

        Raises:
            StudyError: they do not, or the loss takes more than outputs and targets.
        """
        try:
            losses = self(outputs, targets).detach()
            expected = self._call(self._loss, outputs, targets).detach()
        except TypeError as error:
            raise StudyError(
                f"{self._name} cannot be called with outputs and targets alone ({error}): give a "
                "function of both that returns one loss per sample"
            ) from error
        reduce = torch.sum if self._reduction == "sum" else torch.mean
        total, scale = reduce(losses), reduce(losses.abs())
        # Parameters that are not finite make all NaN, which is no difference.
        if (total - expected).abs() > torch.finfo(losses.dtype).eps ** 0.5 * scale:
            raise StudyError(
                f"{self._name} on this batch is {expected:.6g}, but the {self._reduction} of its "
                f"samples' losses is {total:.6g}, as with class weights or ignored targets: use "
                "reduction='sum', or a function that returns one loss per sample"
            )

    def _call(self, loss: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
        """Call a loss with runs and samples as one dimension, in the precision of the outputs."""
        if targets.is_floating_point():
            targets = targets.to(outputs)
        weights = {name: weight.to(outputs) for name, weight in loss.named_buffers()}
        batch = outputs.flatten(0, self._sample_dim), targets.flatten(0, self._sample_dim)
        result: Tensor = functional_call(loss, weights, batch)
        return result


def per_sample(loss: Loss | nn.Module, sample_dim: int) -> Loss:
    """Return the per-sample form of a loss; a loss without a reduction is one already."""
    if isinstance(loss, nn.Module) and getattr(loss, "reduction", "none") != "none":
        return PerSampleLoss(loss, sample_dim)
    return loss
