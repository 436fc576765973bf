"""Split live units into equal parts that replace dead units: the function stays on the data.

The units with the largest outgoing weights are split. A unit is dead if it is zero on all of the
task's data. The parts have equal incoming weights, and equal shares of the outgoing weights.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import find_dead_units, rank_live_units, with_copies

FAMILY = "preserving"
OPTIMIZER_STATE = "cleared_where_changed"
ACTIVATIONS = ["relu"]  # the only activation that is 0 on one side
REFUSES = {"norm": ["layer"]}  # it depends on all units together


def treat(subject: Subject) -> dict[str, Tensor]:
    """Split units in every hidden layer with dead units."""
    parameters = subject.parameters
    for units, is_dead in find_dead_units(subject).items():
        sources, dead = torch.arange(units.width), is_dead.nonzero()[:, 0]
        live = rank_live_units(subject, units, is_dead)
        if len(live):
            sources[dead] = live[torch.arange(len(dead)) % len(live)]
        parameters = with_copies(parameters, units, sources)
    return subject.with_changes(parameters)
