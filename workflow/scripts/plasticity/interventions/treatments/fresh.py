"""Replace the network by a newly initialised one: θ ← θ′."""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "control"
OPTIMIZER_STATE = "cleared"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Draw from the distribution that the network of the setting starts with."""
    return subject.draw_initial()
