# What `__init__.py` imports when it is used: for type checkers, editors and the API reference.
from plasticity.curvature.operators.fisher import Operator as Fisher
from plasticity.curvature.operators.ggn import Operator as GaussNewton
from plasticity.curvature.operators.hessian import Operator as Hessian
from plasticity.curvature.operators.ntk import Operator as NTK  # noqa: N814

__all__ = ["NTK", "Fisher", "GaussNewton", "Hessian"]
