"""The weights of layers as matrices, for methods that regularize singular values."""

from torch import Tensor, nn

from plasticity.errors import StudyError
from plasticity.training.learner import Learner


def weight_matrices(learner: Learner, kernels: str) -> dict[str, Tensor]:
    """Return the weights of linear layers and convolutions as matrices, by layer.

    Args:
        learner: its current weights are used.
        kernels: how a convolution's kernel is seen. ``flat`` is one matrix with a row per output
            channel; ``places`` is a matrix of channels for each place of the kernel.

    Returns:
        Views of shape ``(run, matrix, output, input)``.

    Raises:
        StudyError: the network has convolutions, and `kernels` is empty.
    """
    matrices = {}
    for name, layer in learner.network.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        weight = learner.parameters.tensors[f"{name}.weight"]
        if isinstance(layer, nn.Linear):
            matrices[name] = weight[:, None]
        elif kernels == "flat":
            matrices[name] = weight.flatten(2)[:, None]
        elif kernels == "places":
            matrices[name] = weight.flatten(3).movedim(3, 1)
        else:
            raise StudyError(
                f"{name} is a convolution, and the method must know how its kernel is a matrix: "
                "add kernels: flat (or places)"
            )
    return matrices
