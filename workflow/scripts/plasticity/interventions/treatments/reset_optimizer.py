"""Clear the optimizer's state only. Parameters do not change."""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "control"
OPTIMIZER_STATE = "cleared"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Return equal parameters."""
    return subject.with_changes({})
