"""Change nothing. This copy gives the outcome of the run itself."""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "control"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Return equal parameters."""
    return subject.with_changes({})
