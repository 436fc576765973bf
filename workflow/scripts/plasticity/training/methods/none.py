"""No intervention."""

from plasticity.training.method import Intervention


class Method(Intervention):
    """Plain training."""

    CLAIM = "everything"
