"""Nothing changes: the control in which there is nothing to lose plasticity over."""

from plasticity.data.shift import Unchanged


class Shift(Unchanged):
    """The same images with their true labels in every task; only the order of batches is new."""
