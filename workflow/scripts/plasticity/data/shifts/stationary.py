"""No shift: a control without loss of plasticity from new tasks."""

from plasticity.data.shift import Unchanged


class Shift(Unchanged):
    """Every task has the same images with their true labels. Only the order of batches is new."""
