"""Reset the first layer: its weights and biases are drawn from the initial distribution."""

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
