"""Shift a share `strength` of the units of each hidden layer to where their activation is flat.

A unit's bias falls until its pre-activations are at most −3 on all of the task's data. There relu
is 0, and the slopes of the other activations are at most 0.012. With a norm before the activation,
the norm's bias falls.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import bias_of, largest_preactivations
from plasticity.training.hidden_units import find_hidden_units

FAMILY = "harmful"
STRENGTH = "share"
OPTIMIZER_STATE = "kept"
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "gelu"]  # the others are not flat there


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Shift the same units for all strengths, and more for larger ones, layer by layer."""
    generator, shifted = subject.generator, subject.with_changes({})
    for units in find_hidden_units(subject.network):
        order = torch.randperm(units.width, generator=generator)
        chosen = order[: round(strength * units.width)]
        excess = largest_preactivations(subject, shifted, units) + 3
        shifted[bias_of(units)][chosen] -= excess[chosen].clamp(min=0)
    return shifted
