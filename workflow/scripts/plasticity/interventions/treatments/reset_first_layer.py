"""Draw the weights and biases of the first layer anew."""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "cleared_where_changed"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Reset the first linear layer or convolution. A norm after it does not change."""
    first = next(iter(subject.matrices(subject.parameters)))
    layer = first.removesuffix("weight")
    drawn = subject.draw_initial()
    reset = {name: value for name, value in drawn.items() if name in (first, f"{layer}bias")}
    return subject.with_changes(reset)
