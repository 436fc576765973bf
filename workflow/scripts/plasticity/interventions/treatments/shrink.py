"""Shrink weights and biases: θ ← (1 − strength) θ.

This is the first half of shrink and perturb (Ash & Adams 2020, arXiv 1910.08475). Norm layers do
not change.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
STRENGTH = "share"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Multiply all parameters but those of norm layers."""
    shrunk = {
        name: (1 - strength) * tensor for name, tensor in subject.weights_and_biases().items()
    }
    return subject.with_changes(shrunk)
