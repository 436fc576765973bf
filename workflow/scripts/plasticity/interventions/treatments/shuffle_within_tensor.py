"""Shuffle the values within each tensor: their distribution stays, what they learned does not.

Norm layers do not change.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "cleared_where_changed"  # its means belong to the places before


def treat(subject: Subject) -> dict[str, Tensor]:
    """Permute each weight, bias and position embedding at random."""
    generator = subject.generator
    shuffled = {}
    for name, tensor in subject.weights_and_biases().items():
        order = torch.randperm(tensor.numel(), generator=generator)
        shuffled[name] = tensor.flatten()[order]
    return subject.with_changes(shuffled)
