"""Shift hidden units to where their activation is flat: b ← b − strength · √mean(z²).

z are the pre-activations of a unit on the task's data before the treatment. From a strength of
about 3, most z are negative: relu and gelu are zero, leaky_relu has its small slope, and tanh is
near −1. With a norm before the activation, its bias is shifted.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import bias_of, root_mean_squares

FAMILY = "harmful"
STRENGTH = "positive"
OPTIMIZER_STATE = "kept"
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "gelu"]  # the others are not flat there


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Shift the biases of all hidden layers."""
    shifted = {}
    for units, size in root_mean_squares(subject).items():
        name = bias_of(units)
        shifted[name] = subject.parameters[name] - strength * size
    return subject.with_changes(shifted)
