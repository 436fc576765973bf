"""Curvature operators of a network on a batch: products with vectors, and spectra by block.

Each file of `operators` holds one class `Operator`. It works on any `nn.Module` and any batch; see
docs/curvature.md.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from plasticity.curvature import spectrum
from plasticity.curvature.batch_loss import BatchLoss, Loss
from plasticity.curvature.blocks import blocks_of
from plasticity.curvature.gram import GramMatrices
from plasticity.curvature.lanczos import Product, Quadrature, stochastic_lanczos_quadrature
from plasticity.curvature.spectrum import Spectrum
from plasticity.curvature.torch_loss import PerSampleLoss, per_sample
from plasticity.errors import StudyError
from plasticity.log import warn_once
from plasticity.models.ensemble import is_batchable
from plasticity.models.normalization import BatchNorm

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

VECTORS = 64  # vectors that a dense matrix is built from at a time
ROUND_OFF = 1e3  # eigenvalues are equal within so many machine precisions of the largest
DEFAULT_QUADRATURE = Quadrature()

# Draws the probes of a block of d parameters: (block, vectors, d) → (*run, vectors, d).
Probes = Callable[[str, int, int], Tensor]


class Limits(NamedTuple):
    """What a spectrum may cost.

    Attributes:
        exact_up_to: rows of the largest matrix whose eigenvalues are all computed.
        estimate: effort of an estimate; None allows none.
        memory: bytes for a matrix and its eigenvalues.
    """

    exact_up_to: int
    estimate: Quadrature | None
    memory: float


class Plan(NamedTuple):
    """How the spectrum of one block is computed.

    Attributes:
        layers: of the block.
        size: number of parameters d.
        rank_limit: upper bound on the rank.
        grams: Gram matrices, or None if the operator itself is the smaller matrix.
        estimate: effort of the estimate, or None for an exact spectrum.
    """

    layers: Sequence[str]
    size: int
    rank_limit: int
    grams: GramMatrices | None
    estimate: Quadrature | None


class Operator(ABC):
    """A symmetric operator on the parameters of a network: a mean over the samples of a batch.

    Attributes:
        NAME: how messages call the operator.
        EXACT: whether its spectra are never estimated.
        batch: network, parameters, data and loss. `BatchLoss` explains the run dimension.
    """

    NAME: str
    EXACT = False

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss | nn.Module,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        check: bool = True,
    ) -> None:
        """Define the operator, and check that it exists.

        Args:
            network: a module; the operator acts on its trainable parameters.
            inputs: shape ``(*run, n, …)``.
            targets: shape ``(*run, n, …)``.
            loss: per-sample loss, called as ``loss(outputs, targets)``, shape ``(*run, n)``, or a
                loss of torch such as ``nn.CrossEntropyLoss()``, whose per-sample form is used.
            tensors: parameters of several runs by name, shapes ``(run, …)``, requiring gradients.
                They replace the network's own; the network must broadcast over runs.
            check: whether to check that two evaluations agree and that samples are independent.
                Identities of layers are compared with autograd in any case.

        Raises:
            StudyError: if losses, gradients or products differ between two evaluations, if the
                loss of one sample depends on others, if a loss of torch has no per-sample form, or
                if the network cannot stack runs.
        """
        loss_of_samples = per_sample(loss, sample_dim=0 if tensors is None else 1)
        self.batch = BatchLoss(network, inputs, targets, loss_of_samples, tensors)
        if check:
            self._check_loss()
            self._check_repeatability()
            self._check_independence_of_samples()
            self._check_symmetry()

    @abstractmethod
    def product(self, layers: Iterable[str]) -> Product:
        """Return the product with vectors on the parameters of some layers.

        The product maps shape ``(vector, *run, d)`` to the same shape. Repeated calls are cheap.
        """

    def gram_matrices(self) -> GramMatrices | None:
        """Return small matrices with the nonzero spectrum of each layer, or None."""
        return None

    def rank_limit(self, layers: Iterable[str]) -> int:
        """Return an upper bound on the rank on some layers, if there are no Gram matrices."""
        return self.batch.size_of(layers)

    def gradient(self) -> dict[str, Tensor]:
        """Compute the gradient of the mean loss, by parameter name."""
        return self.batch.gradient()

    def blocks(self) -> dict[str, list[str]]:
        """List the layers of each block: every layer alone, the last two, all."""
        return blocks_of(self.batch.network)

    def as_linear_operator(self, layers: Sequence[str] | None = None) -> "LinearOperator":
        """Return the operator on some layers in the form that the solvers of scipy take.

        Example: ``scipy.sparse.linalg.eigsh(operator.as_linear_operator(), k=3)``.

        Args:
            layers: by default all. A vector holds their parameters one after another, in the order
                of these layers and of ``network.named_parameters()``.

        Returns:
            A symmetric operator of shape ``(d, d)``, with the dtype of the network.

        Raises:
            StudyError: if a layer is unknown, if the operator is of several runs, or, in a product,
                if a vector is complex or torch lacks a second derivative.
        """
        # The import takes a quarter of a second, and no job of a study needs it.
        from scipy.sparse.linalg import LinearOperator

        layers = list(self.batch.layers) if layers is None else layers
        self._check_blocks({"linear operator": layers})
        if self.batch.run_shape:
            raise StudyError(
                f"a linear operator is of one network, and this {self.NAME} is of "
                f"{self.batch.runs} runs: build one operator per run"
            )
        size = self.batch.size_of(layers)
        dtype = torch.empty(0, dtype=self.batch.vector_like.dtype).numpy().dtype
        product = self.product(layers)

        def multiply(columns: np.ndarray) -> np.ndarray:
            if np.iscomplexobj(columns):
                raise StudyError(
                    f"the {self.NAME} multiplies real vectors, and this one is complex"
                )
            # a copy, because torch takes neither negative strides nor arrays to read only
            vectors = torch.from_numpy(np.array(columns.T, dtype=dtype, order="C"))
            parts = vectors.to(self.batch.vector_like).split(VECTORS)
            try:
                products = [product(part).detach() for part in parts]
            except RuntimeError as error:
                if not _is_missing_derivative(error):
                    raise
                raise self._second_derivatives_error(error) from error
            return torch.cat(products).T.cpu().numpy()

        def multiply_one(vector: np.ndarray) -> np.ndarray:
            return multiply(vector.reshape(-1, 1)).reshape(vector.shape)

        return LinearOperator(
            (size, size),
            matvec=multiply_one,
            rmatvec=multiply_one,
            matmat=multiply,
            rmatmat=multiply,
            dtype=dtype,
        )

    def spectra(
        self,
        blocks: Mapping[str, Sequence[str]] | None = None,
        *,
        exact_up_to: int = 4096,
        estimate: Quadrature | None = DEFAULT_QUADRATURE,
        starts: Probes | None = None,
        gradient: Mapping[str, Tensor] | None = None,
        top: int = 10,
        memory: float = float("inf"),
    ) -> dict[str, Spectrum]:
        """Compute the spectrum of each block.

        A spectrum is exact if its matrix is small enough. Otherwise it is estimated from products
        in float32.

        Args:
            blocks: layers of each block; by default those of `blocks`.
            exact_up_to: rows of the largest matrix whose eigenvalues are all computed.
            estimate: effort of the other spectra; None if they must not be estimated.
            starts: draws the probes of a block, called as ``starts(block, vectors, d)``, shape
                ``(*run, vectors, d)``; by default the same normal draws for every run.
            gradient: vector whose overlap with the top eigenvectors is computed, in the form that
                `gradient` returns.
            top: number of top eigenvectors; an estimate also keeps as many eigenvalues at each
                end of the spectrum.
            memory: bytes for a matrix and its eigenvalues.

        Returns:
            By block, leading shape ``(*run,)``.

        Raises:
            StudyError: if a spectrum is too large and must not be estimated, or if an estimate
                does not fit into memory.
        """
        blocks = self.blocks() if blocks is None else blocks
        self._check_blocks(blocks)
        limits = Limits(exact_up_to, estimate, memory)
        grams = self.gram_matrices()
        plans = {
            block: self._plan(block, layers, grams, limits, has_gradient=gradient is not None)
            for block, layers in blocks.items()
        }
        spectra: dict[str, Spectrum] = {}
        single: Operator | None = None
        for block, plan in plans.items():
            if plan.estimate is None:
                exact = self._exact_spectrum(plan, gradient, top)
                spectra[block] = exact._replace(rank_limit=plan.rank_limit)
                continue
            single = single or self._to_float32()
            vectors = (1 + plan.estimate.probes) * plan.estimate.block
            draw = starts or self._draw_probes
            probes = draw(block, vectors, plan.size)
            vector = None if gradient is None else self._vector(gradient, plan.layers).float()
            estimated = single._estimated_spectrum(plan, plan.estimate, probes, vector, top)
            spectra[block] = estimated._replace(rank_limit=plan.rank_limit)
        return spectra

    def _plan(
        self,
        block: str,
        layers: Sequence[str],
        grams: GramMatrices | None,
        limits: Limits,
        *,
        has_gradient: bool,
    ) -> Plan:
        """Decide how to compute the spectrum of a block.

        Raises:
            StudyError: if neither an exact spectrum nor an estimate is possible.
        """
        size = self.batch.size_of(layers)
        limit = self.rank_limit(layers) if grams is None else min(size, grams.rows)
        if grams is not None and grams.rows > max(limits.exact_up_to, size):
            grams = None
        rows = size if grams is None else grams.rows
        # Eigenvectors need about two more matrices than eigenvalues alone.
        matrices = 4 if has_gradient else 2
        matrix_bytes = self.batch.runs * rows**2 * 8 * matrices
        estimate = limits.estimate
        # A block with fewer parameters than this is cheaper to compute exactly.
        smallest = 0 if estimate is None else 2 * estimate.steps * estimate.block
        fits = matrix_bytes <= limits.memory
        if rows <= max(limits.exact_up_to, smallest) and fits:
            return Plan(layers, size, limit, grams, None)

        reason = self._reason_against_exact(block, rows, matrix_bytes, limits)
        if estimate is None or size < smallest:
            may_estimate = estimate is None and not self.EXACT
            advice = "set curvature.estimate to true, " if may_estimate else ""
            raise StudyError(
                f"{reason}: {advice}take fewer samples, or ask for more memory or rows"
            )
        if not fits:
            warn_once(f"{reason}: it is estimated")
        self._check_memory_of_estimate(block, size, estimate, limits.memory)
        return Plan(layers, size, limit, None, estimate)

    def _reason_against_exact(
        self, block: str, rows: int, matrix_bytes: float, limits: Limits
    ) -> str:
        """Say why the exact spectrum of a block is too large."""
        start = f"the exact spectrum of the {self.NAME} on {block} takes a matrix of {rows:,} rows"
        if matrix_bytes <= limits.memory:
            return f"{start}, more than {limits.exact_up_to:,}"
        return f"{start} and {matrix_bytes / 1e9:.3g} GB, and there are {limits.memory / 1e9:.3g}"

    def _check_memory_of_estimate(
        self, block: str, size: int, estimate: Quadrature, memory: float
    ) -> None:
        """Refuse an estimate whose Krylov spaces do not fit into memory."""
        needed = self.batch.runs * size * 4 * 3 * estimate.steps * estimate.block
        if needed > memory:
            raise StudyError(
                f"an estimate of the {self.NAME} on {block} keeps {needed / 1e9:.3g} GB of "
                f"vectors, and there are {memory / 1e9:.3g}: take fewer steps, or ask for more"
            )

    def _exact_spectrum(
        self, plan: Plan, gradient: Mapping[str, Tensor] | None, top: int
    ) -> Spectrum:
        """Compute all eigenvalues, and the overlap of a gradient if there is one."""
        if plan.grams is None:
            matrix = self._dense_matrix(plan.layers, plan.size).detach()
            values, vectors = spectrum.eigenvectors(matrix)
            if gradient is None:
                return Spectrum(values, plan.size)
            vector = self._vector(gradient, plan.layers)
            shares = _squared_coordinates(vectors, vector)
            top_vectors = None
            noise = round_off(values)
        else:
            matrix = plan.grams.over(plan.layers).detach()
            if gradient is None:
                return Spectrum(spectrum.eigenvalues(matrix), plan.size)
            values, vectors = spectrum.eigenvectors(matrix)
            vector = self._vector(gradient, plan.layers)
            products = plan.grams.gradient_products(gradient, plan.layers)
            noise = round_off(values)
            # With G the gᵢ as rows, an eigenvector u of K belongs to Gᵀu / √(n λ) of the operator.
            tiny = torch.finfo(values.dtype).tiny
            shares = _squared_coordinates(vectors, products) / values.clamp(min=tiny)
            values = values.clamp(min=0)
            # A copy, because a view would keep the whole matrix in memory.
            top_vectors = vectors[..., :top].clone()
        overlap = _overlap_with_top(values, shares, noise, top) / vector.square().sum(dim=-1)
        finite = values.isfinite().all(dim=-1)
        overlap = overlap.where(finite, torch.nan)
        return Spectrum(values, plan.size, overlap=overlap, top_vectors=top_vectors)

    def _estimated_spectrum(
        self,
        plan: Plan,
        estimate: Quadrature,
        probes: Tensor,
        gradient: Tensor | None,
        top: int,
    ) -> Spectrum:
        """Estimate the spectrum from products with vectors.

        Args:
            plan: of the block.
            estimate: effort of the estimate.
            probes: shape ``(*run, vectors, d)``.
            gradient: vector whose overlap is computed, shape ``(*run, d)``.
            top: number of eigenvalues at each end.
        """
        probes = probes.to(self.batch.vector_like)
        starts = probes.unflatten(-2, (-1, estimate.block)).movedim(-3, 0)
        product = self.product(plan.layers)
        return stochastic_lanczos_quadrature(product, starts, estimate.steps, top, gradient)

    def _to_float32(self) -> "Operator":
        """Copy the operator to float32.

        An estimate's own error is far above the loss of precision (docs/curvature.md).
        """
        single = copy.copy(self)
        single.batch = self.batch.to_float32()
        return single

    def _dense_matrix(self, layers: Sequence[str], size: int) -> Tensor:
        """Compute the operator as a matrix, shape ``(*run, d, d)``."""
        product = self.product(layers)
        run_shape = self.batch.run_shape
        basis = torch.eye(size).to(self.batch.vector_like)
        columns = []
        for vectors in basis.split(VECTORS):
            stacked = vectors.view(-1, *[1] * len(run_shape), size)
            columns.append(product(stacked.expand(-1, *run_shape, -1)))
        matrix = torch.cat(columns).movedim(0, -1)
        return (matrix + matrix.mT) / 2

    def _vector(self, gradient: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
        """Flatten the gradient of some layers, shape ``(*run, d)``."""
        names = self.batch.parameters_in(layers)
        return self.batch.join([gradient[name] for name in names], names)

    def _draw_probes(self, block: str, vectors: int, size: int) -> Tensor:
        """Draw probes that are the same in every call, for every block and for every run."""
        generator = torch.Generator().manual_seed(0)
        probes = torch.randn(vectors, size, generator=generator, dtype=torch.float64)
        return probes.expand(*self.batch.run_shape, -1, -1)

    def vector_jacobian_products(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Compute vᵀJ for many vectors v, in one batched pass where that surely works.

        Args:
            outputs: tensors that are differentiated.
            inputs: tensors with respect to which they are differentiated.
            vectors: v, one tensor ``(vector, …)`` per output.

        Returns:
            One tensor ``(vector, …)`` per input.
        """
        if len(vectors[0]) > 1 and is_batchable(self.batch.network):
            batched = torch.autograd.grad(
                outputs,
                inputs,
                vectors,
                retain_graph=True,
                is_grads_batched=True,
                materialize_grads=True,
            )
            return list(batched)
        products = [
            torch.autograd.grad(outputs, inputs, vector, retain_graph=True, materialize_grads=True)
            for vector in zip(*vectors, strict=True)
        ]
        if len(products) == 1:
            return [product[None] for product in products[0]]  # saves the copy that stacking makes
        return [torch.stack(of_input) for of_input in zip(*products, strict=True)]

    def _check_blocks(self, blocks: Mapping[str, Sequence[str]]) -> None:
        """Raise if a block is not a list of distinct layers of the network."""
        known = ", ".join(self.batch.layers)
        for block, layers in blocks.items():
            if isinstance(layers, str):
                raise StudyError(
                    f"block {block!r} is the text {layers!r}: give a list of layers, [{layers!r}]"
                )
            if not layers or len(set(layers)) < len(layers):
                raise StudyError(
                    f"block {block!r} is {list(layers)}: give each layer once, and at least one"
                )
            for layer in layers:
                if layer not in self.batch.layers:
                    raise StudyError(
                        f"block {block!r} has the layer {layer!r}, which is none of the trainable "
                        f"layers: {known}"
                    )

    def _check_loss(self) -> None:
        """Check that the loss has one value per sample, and that they make up a loss of torch."""
        outputs = self.batch.outputs()
        if isinstance(self.batch.loss, PerSampleLoss):
            self.batch.loss.check(self.batch.unflatten(outputs), self.batch.targets)
        shape = self.batch.sample_losses(outputs).shape
        expected = self.batch.inputs.shape[: self.batch.sample_dim + 1]
        if shape != expected:
            raise StudyError(
                f"the {self.NAME} needs one loss per sample, shape {tuple(expected)}, but the loss "
                f"has shape {tuple(shape)}: leave the mean to the operator"
            )

    def _check_repeatability(self) -> None:
        """Check that loss, gradient and one product are the same in two evaluations."""
        first, second = self._evaluate(), self._evaluate()
        for quantity, value in first.items():
            tolerance = torch.finfo(value.dtype).eps ** 0.5
            is_same = torch.allclose(
                value, second[quantity], rtol=tolerance, atol=0, equal_nan=True
            )
            if not is_same:
                raise StudyError(
                    f"the {self.NAME} cannot be computed: its {quantity} differs between two "
                    f"evaluations{self._hint_on_training_mode()}"
                )

    def _evaluate(self) -> dict[str, Tensor]:
        """Compute loss, gradient and one product, by name.

        Without second derivatives in torch, there is no product. An operator with Gram matrices
        does not need it.
        """
        layers = list(self.batch.layers)
        values = {"loss": self.batch.mean_loss().detach()}
        values["gradient"] = self._vector(self.gradient(), layers)
        size = self.batch.size_of(layers)
        vector = self._draw_probes("all", 1, size).to(self.batch.vector_like).movedim(-2, 0)
        try:
            values["product with a vector"] = self.product(layers)(vector).detach()
        except RuntimeError as error:
            if not _is_missing_derivative(error):
                raise
            if self.gram_matrices() is None:
                raise self._second_derivatives_error(error) from error
        return values

    def _second_derivatives_error(self, error: RuntimeError) -> StudyError:
        """Say that torch lacks the second derivative of a function."""
        return StudyError(
            f"the {self.NAME} needs second derivatives, and torch has none here: {error}"
        )

    def _check_symmetry(self) -> None:
        """Check that u·(A v) = v·(A u) for random u and v.

        This fails where torch's second derivative of a function is wrong, as that of weight norm in
        torch 2.15 is.
        """
        layers = list(self.batch.layers)
        size = self.batch.size_of(layers)
        vectors = self._draw_probes("all", 2, size).to(self.batch.vector_like).movedim(-2, 0)
        try:
            products = self.product(layers)(vectors).detach()
        except RuntimeError as error:
            if _is_missing_derivative(error):
                return  # only Gram matrices are used
            raise
        forth = (vectors[0] * products[1]).sum(dim=-1)
        back = (vectors[1] * products[0]).sum(dim=-1)
        scale = (vectors.abs() * products.flip(0).abs()).sum(dim=-1).amax(dim=0)
        tolerance = torch.finfo(scale.dtype).eps ** 0.5
        # Parameters that are not finite make both NaN, which is no asymmetry.
        if ((forth - back).abs() > tolerance * scale).any():
            raise StudyError(
                f"the {self.NAME} cannot be computed: it is not symmetric, so torch's second "
                "derivative of some layer is wrong; write that layer in elementary operations"
            )

    def _check_independence_of_samples(self) -> None:
        """Check that the loss of a sample does not depend on other samples."""
        if self.batch.samples == 1:
            return
        if self._has_constant_moments():
            is_dependent = self._gradient_depends_on_others()
        else:
            is_dependent = self._losses_of_halves_differ()
        if is_dependent:
            raise StudyError(
                f"the {self.NAME} cannot be computed: the loss of one sample depends on others, as "
                "with batch norm, or with outputs and targets whose shapes broadcast"
                f"{self._hint_on_training_mode()}"
            )

    def _has_constant_moments(self) -> bool:
        """Check for `BatchNorm` in eval mode: its moments are of the batch, but constants."""
        layers = self.batch.network.modules()
        return any(isinstance(layer, BatchNorm) and not layer.training for layer in layers)

    def _losses_of_halves_differ(self) -> bool:
        """Check whether the losses of a random half of the samples change without the others."""
        together = self.batch.sample_losses(self.batch.outputs()).detach()
        order = torch.randperm(self.batch.samples, generator=torch.Generator().manual_seed(0))
        tolerance = torch.finfo(together.dtype).eps ** 0.5
        for half in order.to(self.batch.inputs.device).tensor_split(2):
            try:
                alone = self.batch.part_losses(half).detach()
            except (IndexError, RuntimeError, ValueError) as error:
                raise StudyError(
                    f"the {self.NAME} cannot be computed: the network or the loss fails on a half "
                    f"of the samples ({error}){self._hint_on_training_mode()}"
                ) from error
            expected = together[..., half]
            scale = expected.abs().nan_to_num(0, 0, 0).amax(dim=-1, keepdim=True)
            # Parameters that are not finite make losses NaN, which is no dependence.
            if ((alone - expected).abs() > tolerance * scale).any():
                return True
        return False

    def _gradient_depends_on_others(self) -> bool:
        """Check whether the gradient of the first loss at the inputs reaches other samples."""
        if not self.batch.inputs.is_floating_point():
            return False
        inputs = self.batch.inputs.detach().requires_grad_()
        losses = self.batch.sample_losses(self.batch.outputs(inputs))
        gradients = torch.autograd.grad(losses[..., 0].sum(), inputs, materialize_grads=True)[0]
        others = gradients.movedim(self.batch.sample_dim, 0)[1:]
        # Parameters that are not finite make gradients NaN, which is no dependence.
        return bool(others.nan_to_num(0, 0, 0).any())

    def _hint_on_training_mode(self) -> str:
        """Name the layers in training mode, as the end of a message."""
        layers = [
            f"{name} ({type(layer).__name__})"
            for name, layer in self.batch.network.named_modules()
            if layer.training and name
        ]
        if not layers:
            return ""
        return f"; layers in training mode: {', '.join(layers)}. Call network.eval()"


class OuterProducts(Operator):
    """An operator (1/n) Σ Jᵢᵀ Sᵢ Sᵢᵀ Jᵢ, with J the derivatives of each sample's outputs."""

    @abstractmethod
    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Compute S from the loss, without gradients.

        Args:
            outputs: shape ``(*run, n, output)``.
            targets: shape ``(*run, n, …)``.
            loss: per-sample loss.

        Returns:
            Shape ``(*run, n, output, column)``.
        """

    def gram_matrices(self) -> GramMatrices:
        """Return the products of all samples' Jᵀ S by layer, with n·column rows each."""
        return GramMatrices(self.columns, self.batch)

    def product(self, layers: Iterable[str]) -> Product:
        """Return the product v → Jᵀ S Sᵀ J v / n.

        J v is the derivative of a backward pass with respect to the vector that it starts from.
        """
        names = self.batch.parameters_in(layers)
        parameters = [self.batch.tensors[name] for name in names]
        outputs = self.batch.outputs()
        with torch.enable_grad():
            S = self.columns(outputs, self.batch.targets, self.batch.flat_loss)
        start = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, parameters, start, create_graph=True, materialize_grads=True
        )

        def product(vectors: Tensor) -> Tensor:
            directions = self.batch.split(vectors, names)
            Jv = self.vector_jacobian_products(pulled, [start], directions)[0]
            weighted = (S @ (S.mT @ Jv[..., None])).squeeze(-1) / outputs.shape[-2]
            products = self.vector_jacobian_products([outputs], parameters, [weighted])
            return self.batch.join(products, names)

        return product


def _squared_coordinates(vectors: Tensor, vector: Tensor) -> Tensor:
    """Square the coordinates of a vector in a basis of columns, shape ``(*run, column)``."""
    return (vectors.mT @ vector[..., None]).squeeze(-1).square()


def round_off(values: Tensor) -> Tensor:
    """Bound the round-off of eigenvalues, shape ``(*run, 1)``."""
    eps = torch.finfo(values.dtype).eps
    return ROUND_OFF * eps * values.abs().amax(dim=-1, keepdim=True)


def _overlap_with_top(values: Tensor, shares: Tensor, noise: Tensor, top: int) -> Tensor:
    """Sum the shares of the top eigenvectors.

    Equal eigenvalues have one common span, so ties with the last of the top count too. A direction
    with an eigenvalue of zero is not among the top.

    Args:
        values: eigenvalues, descending, shape ``(*run, eigenvalue)``.
        shares: squared coordinates of a vector in the eigenvectors, same shape.
        noise: round-off of the eigenvalues, shape ``(*run, 1)``.
        top: number of top eigenvectors.
    """
    shares = shares.where(values.abs() > noise, 0)
    last = values[..., min(top, values.shape[-1]) - 1, None]
    return (shares * (values >= last - noise)).sum(dim=-1)


def _is_missing_derivative(error: RuntimeError) -> bool:
    """Check whether torch lacks the second derivative of a function."""
    message = str(error)
    return "is not implemented" in message or "differentiate twice" in message
