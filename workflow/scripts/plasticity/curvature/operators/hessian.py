"""The Hessian of the mean loss, by products with vectors: the derivative of its gradient (Pearlmutter 1994, Neural Computation 6)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from plasticity.curvature import operator as operators
from plasticity.curvature.lanczos import Product


class Operator(operators.Operator):
    """The Hessian of the mean loss."""

    NAME = "Hessian"
    MEANING = "Hessian of the mean loss"

    def product(self, names: Iterable[str]) -> Product:
        """The derivative of the layers' gradient along vectors."""
        own = self._own(names)
        parameters = [self.tensors[name] for name in own]
        gradient = torch.autograd.grad(
            self._mean_loss(), parameters, create_graph=True, materialize_grads=True
        )
        learnt = [
            place for place, slope in enumerate(gradient) if slope.requires_grad
        ]  # others are constant

        def product(vectors: Tensor) -> Tensor:
            parts = self._split(vectors, own)
            if not learnt:
                return torch.zeros_like(vectors)
            return self._join(
                self._pull(
                    [gradient[place] for place in learnt],
                    parameters,
                    [parts[place] for place in learnt],
                )
            )

        return product
