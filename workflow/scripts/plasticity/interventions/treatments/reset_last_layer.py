"""Reset the output layer (Nikishin et al. 2022, arXiv 2205.07802).

Its weights and biases are drawn from the initial distribution.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "cleared_where_changed"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Reset the weights and biases of the layer `output`."""
    drawn = subject.draw_initial()
    reset = {name: value for name, value in drawn.items() if name.startswith("output.")}
    return subject.with_changes(reset)
