"""The Hessian of the mean loss, by Hessian–vector products.

A product is the derivative of the gradient along a vector (Pearlmutter 1994, Neural Computation
6:147).
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

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

    def rank_limit(self, layers: Iterable[str]) -> int:
        """Bound the rank by the space in which the derivatives of gradients lie.

        The gradient of a linear layer is Σᵢ δᵢ aᵢᵀ over n inputs aᵢ, with p elements (the bias adds
        one), and output gradients δᵢ, with q elements. So its derivative in any direction is
        Σᵢ (δ′ᵢ aᵢᵀ + δᵢ a′ᵢᵀ). With c = min(n, p) and r = min(n, q), such matrices have
        q·c + r·p − r·c dimensions. Other layers count all their parameters.
        """
        inputs = self._inputs_of_linear_layers()
        limit = 0
        for layer in layers:
            size = self.batch.size_of([layer])
            module = self.batch.network.get_submodule(layer)
            if layer in inputs and isinstance(module, nn.Linear):
                q = module.out_features
                p = size // q
                c, r = min(inputs[layer], p), min(inputs[layer], q)
                size = min(size, q * c + r * p - r * c)
            limit += size
        return limit

    @torch.no_grad()
    def _inputs_of_linear_layers(self) -> dict[str, int]:
        """Count the vectors that each linear layer maps, over all samples, in one run."""
        counts: dict[str, int] = {}

        def count(layer: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            vectors = inputs[0].numel() // inputs[0].shape[-1] // self.batch.runs
            counts[layer] = counts.get(layer, 0) + vectors

        hooks = [
            module.register_forward_pre_hook(partial(count, layer))
            for layer, module in self.batch.network.named_modules()
            if type(module) is nn.Linear
        ]
        try:
            self.batch.outputs()
        finally:
            for hook in hooks:
                hook.remove()
        return counts
