"""Curvature of a network on a batch: operators, spectra and measures.

`Fisher`, `GaussNewton`, `Hessian` and `NTK` are the classes of `plasticity.curvature.operators`.
"""

from typing import Any

from plasticity.config import registry

__all__ = ["NTK", "Fisher", "GaussNewton", "Hessian"]

_FILES = {"NTK": "ntk", "Fisher": "fisher", "GaussNewton": "ggn", "Hessian": "hessian"}


def __getattr__(name: str) -> Any:
    """Import an operator when it is used first.

    A job's code digest contains what this file imports, but must contain only the job's operators.
    """
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return registry.load("operators", _FILES[name]).Operator
