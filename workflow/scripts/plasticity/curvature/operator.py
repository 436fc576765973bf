"""Curvature operators, one file each: a class `Operator` of a network at a batch, with products and spectra, block by block.

They are of use alone, on any `nn.Module` and batch: docs/curvature.md.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plasticity.curvature import spectrum
from plasticity.curvature.gram import Columns, Grams, Loss, layers
from plasticity.curvature.lanczos import Product, Quadrature, stochastic_lanczos_quadrature
from plasticity.curvature.spectrum import Spectrum
from plasticity.errors import StudyError
from plasticity.log import warn_once
from plasticity.models import normalization
from plasticity.models.ensemble import broadcasts, forward

ALL, LAST_TWO = "all", "last_two"
VECTORS = 64  # that a dense matrix is multiplied with at a time
DEFAULT = Quadrature()
ROUND_OFF = 1e3  # machine precisions, of the largest eigenvalue, within which eigenvalues are equal


class Operator(ABC):
    """A symmetric operator on the parameters of a network, a mean over the samples of a batch.

    Attributes:
        network: a module whose parameters (those that learn) it acts on.
        inputs: shape ``(n, …)``, or ``(run, n, …)`` with `tensors`.
        targets: shape ``(n, …)``, or ``(run, n, …)`` with `tensors`.
        loss: of each sample, called as ``loss(outputs, targets)``, shape ``(…, n)``.
        tensors: parameters of many runs by name, shapes ``(run, …)``, requiring gradients, in place of the network's own; for a
            network that broadcasts.
    """

    NAME: str
    EXACT = False

    def __init__(
        self,
        network: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        check: bool = True,
    ) -> None:
        """Take the operator of a network at a batch, with a look at whether it is one.

        Raises:
            StudyError: the same twice gives different losses, gradients or products, or samples see each other (dropout, batch norm in
                training mode); runs of a network that does not broadcast.
        """
        if tensors is not None and not broadcasts(network):
            raise StudyError("this network does not broadcast: its runs come one after the other")
        self.network, self.inputs, self.targets, self.loss = network, inputs, targets, loss
        self.tensors: dict[str, Tensor] = dict(
            network.named_parameters() if tensors is None else tensors
        )
        self._run = tensors is not None
        self._like = next(iter(self.tensors.values()))  # whose type and device vectors have
        if check:
            self._check()

    @abstractmethod
    def product(self, names: Iterable[str]) -> Product:
        """Its product with vectors on the parameters of some layers: shape ``(vector, …, d)`` → the same; cheap to call again and again."""

    def grams(self) -> Grams | None:
        """Small matrices with its nonzero spectrum, layer by layer; None if it has none."""
        return None

    def gradient(self) -> dict[str, Tensor]:
        """The gradient of the mean loss, by name."""
        wanted = [name for own in layers(self.network).values() for name in own]
        found = torch.autograd.grad(
            self._mean_loss(), [self.tensors[name] for name in wanted], materialize_grads=True
        )
        return dict(zip(wanted, found, strict=True))

    def spectra(
        self,
        blocks: Mapping[str, Sequence[str]] | None = None,
        *,
        exact_up_to: int = 4096,
        estimate: Quadrature | None = DEFAULT,
        starts: Callable[[str, int, int], Tensor] | None = None,
        gradient: Mapping[str, Tensor] | None = None,
        top: int = 10,
        memory: float = float("inf"),
    ) -> dict[str, Spectrum]:
        """Its spectrum on each block: exact where the matrix that this takes is small enough, else estimated, by products in float32.

        Args:
            blocks: layers of each block by its name; by default those of `blocks`.
            exact_up_to: rows of the largest matrix whose eigenvalues are all found.
            estimate: what is spent on the others; None if none may be estimated.
            starts: probes for a block of d parameters, called as ``starts(block, vectors, d)``, shape ``(…, vectors, d)``; normal draws.
            gradient: whose overlap with the span of the top eigenvectors is wanted, by name; as `gradient` gives it.
            top: how many eigenvectors these are, and how many eigenvalues of each end are kept of an estimate.
            memory: bytes that a matrix, with what its eigenvalues take, may take.

        Returns:
            By block; of shape ``()``, or ``(run,)``.

        Raises:
            StudyError: a spectrum that is neither small enough nor may be estimated.
        """
        grams, found = self.grams(), {}
        runs = len(self.inputs) if self._run else 1
        single: Operator | None = None
        for block, names in (blocks or self.blocks()).items():
            d = sum(
                self.tensors[own][0].numel() if self._run else self.tensors[own].numel()
                for own in self._own(names)
            )
            along = (
                None
                if gradient is None
                else torch.cat(
                    [gradient[own].flatten(int(self._run)) for own in self._own(names)], dim=-1
                )
            )
            smallest = 0 if estimate is None else 2 * estimate.steps * estimate.block
            small = grams if grams is not None and grams.rows <= max(exact_up_to, d) else None
            rows = d if small is None else small.rows
            needs = runs * rows**2 * 8 * (2 if gradient is None else 4)
            if rows <= max(exact_up_to, smallest) and needs <= memory:
                found[block] = self._exact(small, names, d, along, gradient, top)
                continue
            reason = (
                f"the exact spectrum of the {self.NAME} on {block} takes a matrix of {rows:,} rows"
            )
            reason += (
                f" and {needs / 1e9:.3g} GB, and there are {memory / 1e9:.3g}"
                if needs > memory
                else f", more than {exact_up_to:,}"
            )
            if estimate is None or d < smallest:
                way = (
                    "set curvature.estimate to true, "
                    if estimate is None and not self.EXACT
                    else ""
                )
                raise StudyError(
                    f"{reason}: {way}take fewer samples, or ask for more memory or rows"
                )
            if needs > memory:
                warn_once(f"{reason}: it is estimated")
            vectors = (1 + estimate.probes) * estimate.block
            drawn = self._draw(vectors, d) if starts is None else starts(block, vectors, d)
            needs = runs * d * 4 * 3 * estimate.steps * estimate.block
            if needs > memory:
                available = f"and there are {memory / 1e9:.3g}: take fewer steps, or ask for more"
                raise StudyError(
                    f"an estimate of the {self.NAME} on {block} keeps {needs / 1e9:.3g} GB of vectors, {available}"
                )
            single = single or self._in_float32()
            drawn = drawn.to(single._like).unflatten(-2, (-1, estimate.block)).movedim(-3, 0)
            found[block] = stochastic_lanczos_quadrature(
                single.product(names),
                drawn,
                estimate.steps,
                top,
                None if along is None else along.float(),
            )
        return found

    def _in_float32(self) -> "Operator":
        """The same in float32: what that loses is far below an estimate's own error (docs/curvature.md)."""
        targets = self.targets.float() if self.targets.is_floating_point() else self.targets
        tensors = (
            {
                name: tensor.detach().float().requires_grad_()
                for name, tensor in self.tensors.items()
            }
            if self._run
            else None
        )
        inputs = self.inputs.float() if self.inputs.is_floating_point() else self.inputs
        return type(self)(
            copy.deepcopy(self.network).float(), inputs, targets, self.loss, tensors, check=False
        )

    def blocks(self) -> dict[str, list[str]]:
        """The layers of every block: each layer, the last two, all of them."""
        return blocks_of(self.network)

    def _exact(
        self,
        grams: Grams | None,
        names: Sequence[str],
        d: int,
        along: Tensor | None,
        gradient: Mapping[str, Tensor] | None,
        top: int,
    ) -> Spectrum:
        """All eigenvalues; with the overlap of a gradient: (uᵀ Gᵀg)² / (n λ) where K has an eigenvector u, (vᵀ g)² where A has v."""
        matrix = (self._dense(names, d) if grams is None else grams.over(names)).detach()
        if along is None or gradient is None:
            values = spectrum.eigenvalues(matrix) if grams else spectrum.eigenvectors(matrix)[0]
            return Spectrum(values, d)
        values, vectors = spectrum.eigenvectors(matrix)
        coordinates = along if grams is None else grams.along(gradient, names)
        shares = (vectors.mT @ coordinates[..., None]).squeeze(-1).square()
        noise = ROUND_OFF * torch.finfo(values.dtype).eps * values.abs().amax(dim=-1, keepdim=True)
        if grams is not None:
            shares, values = (
                shares / values.clamp(min=torch.finfo(values.dtype).tiny),
                values.clamp(min=0),
            )
        shares = shares.where(
            values.abs() > noise, 0
        )  # what the operator does not see is none of its top
        tied = (
            values >= values[..., min(top, values.shape[-1]) - 1, None] - noise
        )  # equal eigenvalues have one span
        overlap = (shares * tied).sum(dim=-1) / along.square().sum(dim=-1)
        return Spectrum(values, d, overlap=overlap.where(values.isfinite().all(dim=-1), torch.nan))

    def _dense(self, names: Sequence[str], d: int) -> Tensor:
        """The operator as a matrix, shape ``(…, d, d)``."""
        product, lead = self.product(names), [len(self.inputs)] if self._run else []
        basis = torch.eye(d).to(self._like)
        columns = [
            product(some[:, None].expand(-1, *lead, -1) if lead else some)
            for some in basis.split(VECTORS)
        ]
        matrix = torch.cat(columns).movedim(0, -1)
        return (matrix + matrix.mT) / 2

    def _own(self, names: Iterable[str]) -> list[str]:
        """The parameters of some layers, by name."""
        of_layers = layers(self.network)
        return [own for name in names for own in of_layers[name]]

    def _outputs(self) -> Tensor:
        """With what autograd needs."""
        with torch.enable_grad():
            return (
                forward(self.network, self.tensors, self.inputs)
                if self._run
                else cast(Tensor, self.network(self.inputs))
            )

    def _mean_loss(self) -> Tensor:
        """The sum over runs of their mean losses: a run's gradient is that of its own."""
        return self.loss(self._outputs(), self.targets).mean(dim=-1).sum()

    def _pull(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]
    ) -> list[Tensor]:
        """Vector–Jacobian products for each of many vectors, shapes ``(vector, …)``; at once where that is sure to work."""
        batched = len(vectors[0]) > 1 and broadcasts(self.network)
        pull = torch.autograd.grad
        if batched:
            return list(
                pull(
                    outputs,
                    inputs,
                    vectors,
                    retain_graph=True,
                    is_grads_batched=True,
                    materialize_grads=True,
                )
            )
        found = [
            pull(outputs, inputs, one, retain_graph=True, materialize_grads=True)
            for one in zip(*vectors, strict=True)
        ]
        if len(found) == 1:
            return [one[None] for one in found[0]]  # without a copy
        return [torch.stack(of_input) for of_input in zip(*found, strict=True)]

    def _split(self, vectors: Tensor, own: Sequence[str]) -> list[Tensor]:
        """Vectors ``(vector, …, d)`` as tensors of the shapes of parameters."""
        lead = int(self._run)
        sizes = [self.tensors[name].shape[lead:] for name in own]
        parts = vectors.split([size.numel() for size in sizes], dim=-1)
        return [
            part.unflatten(-1, size) if size else part.squeeze(-1)
            for part, size in zip(parts, sizes, strict=True)
        ]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        """The reverse of `_split`."""
        lead = 1 + int(self._run)
        return torch.cat(
            [part.flatten(lead) if part.ndim > lead else part.unsqueeze(-1) for part in parts],
            dim=-1,
        )

    def _draw(self, vectors: int, d: int) -> Tensor:
        """The same normal draws at every call, and for every run: each has what it has alone."""
        drawn = torch.randn(
            vectors, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        return drawn.expand(len(self.inputs), -1, -1) if self._run else drawn

    def _check(self) -> None:
        """See to it that everything is the same twice, and that samples do not see each other."""
        names = list(layers(self.network))
        d = sum(
            self.tensors[own][0].numel() if self._run else self.tensors[own].numel()
            for own in self._own(names)
        )
        vector = self._draw(1, d).to(self._like).movedim(-2, 0)

        shape, wanted = (
            self.loss(self._outputs(), self.targets).shape,
            self.inputs.shape[: 1 + self._run],
        )
        if shape != wanted:
            reduced = f"and gives shape {tuple(shape)} where {tuple(wanted)} is wanted: leave the mean to the operator"
            raise StudyError(
                f"the {self.NAME} cannot be taken: its loss is not of each sample, {reduced}"
            )

        def open_dataset() -> dict[str, Tensor]:
            found = {
                "loss": self._mean_loss().detach(),
                "gradient": self._join([part[None] for part in self.gradient().values()]),
            }
            try:
                return found | {"product with a vector": self.product(names)(vector).detach()}
            except RuntimeError as error:  # torch has no second derivative of some functions
                if not any(
                    words in str(error) for words in ("is not implemented", "differentiate twice")
                ):
                    raise
                if self.grams() is None:
                    raise StudyError(
                        f"the {self.NAME} takes second derivatives, and torch has none here: {error}"
                    ) from error
                return found

        suspects = [
            f"{name} ({type(layer).__name__})"
            for name, layer in self.network.named_modules()
            if layer.training and name
        ]
        hint = (
            f"; in training mode are {', '.join(suspects)}: call network.eval()" if suspects else ""
        )
        for (what, once), again in zip(
            open_dataset().items(), open_dataset().values(), strict=True
        ):
            if not torch.allclose(
                once, again, rtol=torch.finfo(once.dtype).eps ** 0.5, atol=0, equal_nan=True
            ):
                raise StudyError(
                    f"the {self.NAME} cannot be taken: its {what} is another one at a second look{hint}"
                )
        if self.inputs.is_floating_point() and self.inputs.shape[int(self._run)] > 1:
            inputs = self.inputs.detach().requires_grad_()
            with torch.enable_grad():
                outputs = (
                    forward(self.network, self.tensors, inputs)
                    if self._run
                    else self.network(inputs)
                )
                first = self.loss(outputs, self.targets)[..., 0].sum()
            slopes = torch.autograd.grad(first, inputs, materialize_grads=True)[0]
            others = (slopes[:, 1:] if self._run else slopes[1:]).nan_to_num(
                0, 0, 0
            )  # parameters that are not finite give NaN
            if others.any():
                raise StudyError(
                    f"the {self.NAME} cannot be taken: the loss of one sample depends on others, as with batch norm{hint}"
                )


class OuterProducts(Operator):
    """An operator (1/n) Σ Jᵢᵀ Sᵢ Sᵢᵀ Jᵢ of the derivatives J of each sample's outputs."""

    @abstractmethod
    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """S: ``(…, n, output)`` and ``(…, n)`` → ``(…, n, output, column)``, without gradients."""

    def grams(self) -> Grams:
        """Matrices of the products of all samples' Jᵀ S, layer by layer, n · column rows each; their sum is that of the whole network."""
        columns: Columns = self.columns
        return Grams(
            columns,
            self.network,
            self.inputs,
            self.targets,
            self.loss,
            self.tensors if self._run else None,
        )

    def product(self, names: Iterable[str]) -> Product:
        """Jᵀ S Sᵀ J v / n: forward by the derivative of a backward pass with respect to what it began with, then backward."""
        own = self._own(names)
        parameters, outputs = [self.tensors[name] for name in own], self._outputs()
        S = self.columns(outputs, self.targets, self.loss)
        start = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, parameters, start, create_graph=True, materialize_grads=True
        )

        def product(vectors: Tensor) -> Tensor:
            pushed = self._pull(pulled, [start], self._split(vectors, own))[0]
            weighed = (S @ (S.mT @ pushed[..., None])).squeeze(-1) / outputs.shape[-2]
            return self._join(self._pull([outputs], parameters, [weighed]))

        return product


def blocks_of(network: nn.Module) -> dict[str, list[str]]:
    """The layers of every block of a network: each layer, the last two, all.

    The last two are those from the last layer but one that is no norm on; a norm between them is one of them.
    """
    names = list(layers(network))
    weights = [
        name for name in names if not isinstance(network.get_submodule(name), normalization.LAYERS)
    ]
    last = names[names.index(weights[-2]) :] if len(weights) > 1 else names
    return {name: [name] for name in names} | {LAST_TWO: last, ALL: names}
