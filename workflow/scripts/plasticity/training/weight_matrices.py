"""Layers as matrices: what methods mean that regularize singular values."""

from torch import Tensor, nn

from plasticity.errors import StudyError
from plasticity.training.learner import Learner


def of_layers(learner: Learner, kernels: str) -> dict[str, Tensor]:
    """The weight of each linear layer and convolution as matrices, a view of shape ``(run, matrix, output, input)``, by layer.

    Args:
        learner: whose.
        kernels: how a convolution's kernel is seen: ``flat``, one matrix with a row for each output channel; ``places``, a matrix of
            channels for each place of the kernel.

    Raises:
        StudyError: convolutions, and `kernels` is empty.
    """
    found = {}
    for name, layer in learner.network.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        weight = learner.parameters.tensors[f"{name}.weight"]
        if weight.ndim == 3:
            found[name] = weight[:, None]
        elif kernels == "flat":
            found[name] = weight.flatten(2)[:, None]
        elif kernels == "places":
            found[name] = weight.flatten(3).movedim(3, 1)
        else:
            raise StudyError(
                f"{name} is a convolution, and the method must know how its kernel is a matrix: add kernels: flat (or places)"
            )
    return found
