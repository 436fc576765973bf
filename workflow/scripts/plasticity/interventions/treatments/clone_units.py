"""Replace a share `strength` of the units of each hidden layer by copies of other units.

Copies get the incoming weights, and share the outgoing weights of their source in equal parts. So
they get equal gradients and stay copies (Joudaki et al. 2025, arXiv 2510.00304).
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import with_copies
from plasticity.training.hidden_units import find_hidden_units

FAMILY = "harmful"
STRENGTH = "share"
OPTIMIZER_STATE = "cleared"  # copies with different means would part in the first step


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Replace the same units for all strengths, and more for larger ones; one unit stays."""
    generator, parameters = subject.generator, subject.parameters
    for units in find_hidden_units(subject.network):
        order, sources = torch.randperm(units.width, generator=generator), torch.arange(units.width)
        count = min(round(strength * units.width), units.width - 1)
        stays = order[count:].flip(0)
        sources[order[:count]] = stays[torch.arange(count) % len(stays)]
        parameters = with_copies(parameters, units, sources)
    return subject.with_changes(parameters)
