"""Shrink and perturb: θ ← (1 − strength) θ + strength · θ′, with a newly initialised network θ′.

From Ash & Adams 2020, arXiv 1910.08475, with one number for both. Norm layers do not change.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
STRENGTH = "share"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Mix all parameters but those of norm layers."""
    drawn = subject.draw_initial()
    mixed = {
        name: (1 - strength) * tensor + strength * drawn[name]
        for name, tensor in subject.weights_and_biases().items()
    }
    return subject.with_changes(mixed)
