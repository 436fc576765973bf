"""Move all parameters toward their initial values: θ ← (1 − strength) θ + strength · θ⁰.

The target is that of L2 Init (Kumar et al. 2023, arXiv 2308.11958): each parameter's own initial
value, norm layers included.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
STRENGTH = "share"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Mix all parameters with the initial ones."""
    mixed = {
        name: (1 - strength) * tensor + strength * subject.initial[name]
        for name, tensor in subject.parameters.items()
    }
    return subject.with_changes(mixed)
