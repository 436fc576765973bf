"""Reset dead units: incoming weights are drawn again, outgoing weights become 0.

As in ReDo (Sokar et al. 2023, arXiv 2302.12902, algorithm 1) with a threshold of 0: a unit is dead
if it is zero on all of the task's data. A weight between two dead units is drawn again.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject
from plasticity.interventions.units import find_dead_units

FAMILY = "restoring"
OPTIMIZER_STATE = "cleared_where_changed"
ACTIVATIONS = ["relu"]  # the only activation that is 0 on one side


def treat(subject: Subject) -> dict[str, Tensor]:
    """Reset the dead units of all hidden layers together."""
    parameters, drawn = subject.with_changes({}), subject.draw_initial()
    dead = find_dead_units(subject)
    for units, is_dead in dead.items():
        for name in units.outgoing:
            units.columns(parameters[name][None])[:, :, :, is_dead] = 0
    for units, is_dead in dead.items():
        for name in units.incoming:
            parameters[name][is_dead] = drawn[name][is_dead]
    return parameters
