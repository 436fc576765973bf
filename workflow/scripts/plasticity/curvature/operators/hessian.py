"""The Hessian of the mean loss, by Hessian–vector products.

A product is the derivative of the gradient along a vector (Pearlmutter 1994, Neural Computation
6:147).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from plasticity.curvature import operator
from plasticity.curvature.lanczos import Product


class Operator(operator.Operator):
    """The Hessian of the mean loss."""

    NAME = "Hessian"
    MEANING = "Hessian of the mean loss"

    def product(self, layers: Iterable[str]) -> Product:
        """Return the Hessian–vector product on the parameters of some layers."""
        names = self.batch.parameters_in(layers)
        parameters = [self.batch.tensors[name] for name in names]
        gradients = torch.autograd.grad(
            self.batch.mean_loss(), parameters, create_graph=True, materialize_grads=True
        )
        # The gradient of a parameter on which the loss is linear is constant.
        varying = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        varying_gradients = [gradients[index] for index in varying]

        def product(vectors: Tensor) -> Tensor:
            if not varying:
                return torch.zeros_like(vectors)
            parts = self.batch.split(vectors, names)
            directions = [parts[index] for index in varying]
            products = self.vector_jacobian_products(varying_gradients, parameters, directions)
            return self.batch.join(products, names)

        return product
