"""Scale hidden layers and keep the function: incoming weights · α, outgoing weights / α.

α is `strength` in every other hidden layer, and 1 / `strength` in those between, because equal
factors would cancel. With a norm before the activation, its weights and biases are scaled.
Neyshabur et al. 2015 (arXiv 1506.02617) discuss this symmetry.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import last_parameters
from plasticity.training.hidden_units import find_hidden_units

FAMILY = "preserving"
STRENGTH = "above_one"
OPTIMIZER_STATE = "kept"
ACTIVATIONS = ["relu", "leaky_relu", "identity", "crelu"]  # those with φ(α z) = α φ(z)


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Scale the first hidden layer up, the second down, and so on."""
    scaled = subject.with_changes({})
    for place, units in enumerate(find_hidden_units(subject.network)):
        alpha = strength if place % 2 == 0 else 1 / strength
        for name in last_parameters(units):
            scaled[name] *= alpha
        for name in units.outgoing:
            scaled[name] /= alpha
    return scaled
