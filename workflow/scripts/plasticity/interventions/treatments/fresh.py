"""Draw all parameters anew: θ ← θ′, a newly initialised network."""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "control"
OPTIMIZER_STATE = "cleared"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Draw from the distribution that the network of the setting starts with."""
    return subject.draw_initial()
