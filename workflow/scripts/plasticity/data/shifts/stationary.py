"""No shift: a control without loss of plasticity from new tasks."""

from plasticity.data.shift import BaseShift


class Shift(BaseShift):
    """Every task has the same images with their true labels. Only the order of batches is new."""
