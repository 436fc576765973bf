"""The Hessian of the mean loss, by Hessian–vector products.

A product is the derivative of the gradient along a vector (Pearlmutter 1994, Neural Computation
6:147). Autograd computes it for any network. `chain_hessian` is faster, and is used where one
product equals that of autograd.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from plasticity.curvature import operator
from plasticity.curvature.chain_hessian import ChainHessian, is_chain
from plasticity.curvature.lanczos import Product


class Operator(operator.Operator):
    """The Hessian of the mean loss."""

    NAME = "Hessian"
    MEANING = "Hessian of the mean loss"

    def product(self, layers: Iterable[str]) -> Product:
        """Return the Hessian–vector product on the parameters of some layers."""
        names = self.batch.parameters_in(layers)
        by_autograd = self._product_by_autograd(names)
        if not is_chain(self.batch):
            return by_autograd
        chain = ChainHessian(self.batch)

        def by_chain(vectors: Tensor) -> Tensor:
            directions = dict(zip(names, self.batch.split(vectors, names), strict=True))
            products = chain.product(directions)
            return self.batch.join([products[name] for name in names], names)

        return by_chain if self._are_equal(by_chain, by_autograd, names) else by_autograd

    def _product_by_autograd(self, names: Sequence[str]) -> Product:
        """Return the Hessian–vector product on some parameters of any network."""
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

    def _are_equal(self, product: Product, expected: Product, names: Sequence[str]) -> bool:
        """Check whether two products with one random vector agree up to round-off.

        A network may do more than its layers say, for example in hooks.
        """
        size = sum(self.batch.parameter_shape(name).numel() for name in names)
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(1, size, generator=generator, dtype=torch.float64)
        vector = vector.to(self.batch.vector_like)
        found, truth = product(vector), expected(vector)
        difference, scale = (found - truth).norm(), found.norm() + truth.norm()
        # Parameters that are not finite make both NaN, which is no difference.
        return not difference > torch.finfo(scale.dtype).eps ** 0.5 * scale

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
