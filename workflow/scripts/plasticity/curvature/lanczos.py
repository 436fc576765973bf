"""Estimate the spectrum of an operator from products with vectors.

The method is stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38,
section 3) with deflation: converged eigenvectors are removed first, and the quadrature estimates
the rest. In the spectra of networks, a few eigenvalues hold most of the trace. A random probe
weighs each of them with a relative error of √2; a removed eigenvalue counts as exactly one.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plasticity.curvature.spectrum import Spectrum, eigenvectors

# An eigenvector is removed if its residual is at most this share of |λ|. The error of λ is of the
# order of the share's square.
CONVERGED = 1e-2
# Residuals are not known better than this many machine precisions of the largest |λ|, because
# products with the operator are off by as much.
ROUND_OFF = 10
# Shorter vectors, in machine precisions of the operator's norm, count as zero.
LOST = 100
# Numbers in the bases of the probes that are in memory together, if one probe needs fewer.
AT_ONCE = 2**25

Product = Callable[[Tensor], Tensor]


class Quadrature(NamedTuple):
    """Effort of an estimate.

    Attributes:
        steps: Lanczos steps of each Krylov space.
        probes: random starts whose quadratures are averaged, at least 2. Their differences give
            the margin of error.
        block: vectors per start, which share a Krylov space. A space separates as many equal
            eigenvalues.
    """

    steps: int = 64
    probes: int = 4
    block: int = 1


class KrylovSpace(NamedTuple):
    """Krylov spaces of an operator A, one per probe and run.

    Attributes:
        basis: orthonormal rows Q, shape ``(probe, *run, row, d)``.
        matrix: Q A Qᵀ, shape ``(probe, *run, row, row)``, float64.
        below: coefficients of A · (last block) outside the space, shape
            ``(probe, *run, block, block)``, float64.
    """

    basis: Tensor
    matrix: Tensor
    below: Tensor


class BlockLanczos:
    """Block Lanczos iteration with full reorthogonalization (Golub & Underwood 1977).

    All probes and runs form one batch dimension. Where a space is exhausted, the iteration
    continues from a random vector orthogonal to it, which has no weight in a quadrature.

    Attributes:
        basis: removed rows, then the rows found so far, shape ``(batch, known + row, d)``.
        matrix: the operator in the basis without the removed rows, shape ``(batch, row, row)``.
        scale: largest norm of a product so far, shape ``(batch,)``; stands for the operator's norm.
    """

    def __init__(
        self, product: Product, start: Tensor, steps: int, removed: Tensor | None = None
    ) -> None:
        """Orthonormalize the start.

        Args:
            product: maps vectors ``(vector, *run, d)`` to the operator's products with them.
            start: shape ``(probe, *run, block, d)``.
            steps: number of steps; ``steps · block`` is at most d minus the removed rows.
            removed: orthonormal or zero rows that stay outside the space, shape
                ``(*run, row, d)``.
        """
        *self._lead, self._block, d = start.shape
        self._product = product
        self._rows = steps * self._block
        # Replacement vectors differ from those of a space without removed rows, because that
        # space may be where the removed rows come from.
        self._seed_offset = int(removed is not None)
        if removed is None:
            removed = start.new_zeros(*self._lead[1:], 0, d)
        self._known = removed.shape[-2]
        basis = start.new_empty(*self._lead, self._known + self._rows, d)
        basis[..., : self._known, :] = removed
        self.basis = basis.flatten(0, -3)
        self._eps = torch.finfo(start.dtype).eps
        self.matrix = self._float64_zeros(self._rows, self._rows)
        self.scale = self._float64_zeros()
        start = start.flatten(0, -3)
        if self._known:
            start = self._project_out(start, self._known)
            start = self._project_out(start, self._known)
        self._append(start, _norm(start), self._known)

    def run(self) -> KrylovSpace:
        """Take all steps."""
        for row in range(0, self._rows, self._block):
            vectors = self._step(row)
        below = torch.linalg.qr(vectors.mT.double(), mode="r").R
        return KrylovSpace(
            self.basis[:, self._known :].unflatten(0, self._lead),
            self.matrix.unflatten(0, self._lead),
            below.unflatten(0, self._lead),
        )

    def _step(self, row: int) -> Tensor:
        """Apply the operator to the block at `row`, and extend the space by the result.

        Returns:
            The part of the products outside the space, shape ``(batch, block, d)``.
        """
        filled = self._known + row + self._block
        vectors = self._apply_operator(filled)
        vectors, lengths = self._orthogonalize(vectors, row, filled)
        if row + self._block < self._rows:
            below = self._append(vectors, lengths, filled)
            this_block = slice(row, row + self._block)
            next_block = slice(row + self._block, row + 2 * self._block)
            self.matrix[:, next_block, this_block] = below
            self.matrix[:, this_block, next_block] = below.mT
        return vectors

    def _apply_operator(self, filled: int) -> Tensor:
        """Multiply the last block of the basis by the operator, shape ``(batch, block, d)``."""
        newest = self.basis[:, filled - self._block : filled].unflatten(0, self._lead)
        products = self._product(newest.movedim(-2, 1).flatten(0, 1))
        by_block: Tensor = products.unflatten(0, (self._lead[0], self._block)).movedim(1, -2)
        return by_block.reshape(self._batch_size, self._block, -1)

    def _orthogonalize(self, vectors: Tensor, row: int, filled: int) -> tuple[Tensor, Tensor]:
        """Subtract the projection of products on the space, and store it in the matrix.

        The first pass is against the last two blocks, where almost all of the projection lies.
        Two more passes are against the whole space; the second of them only where the first
        removed most of a vector.

        Returns:
            The rest of the vectors and their norms.
        """
        active = torch.ones_like(vectors[:, :1, :1])
        block = slice(row, row + self._block)
        for first in (max(self._known, filled - 2 * self._block), 0, 0):
            basis = self.basis[:, first:filled]
            projection = (vectors @ basis.mT) * active
            vectors = torch.baddbmm(vectors, projection, basis, alpha=-1)
            diagonal = projection[..., -self._block :].double()
            self.matrix[:, block, block] += (diagonal + diagonal.mT) / 2
            self.scale = _norm(projection)[..., 0].amax(dim=-1).maximum(self.scale)
            if first == 0:
                lengths = _norm(vectors)
                active = (_norm(projection) > lengths).any(dim=1, keepdim=True).to(vectors.dtype)
                if not active.any():
                    break
        return vectors, lengths

    def _append(self, vectors: Tensor, lengths: Tensor, filled: int) -> Tensor:
        """Orthonormalize vectors among themselves, and append them to the basis.

        Args:
            vectors: orthogonal to the basis, shape ``(batch, block, d)``.
            lengths: their norms, shape ``(batch, block, 1)``.
            filled: rows of the basis so far.

        Returns:
            Coefficients of the vectors in the new rows, shape ``(batch, row, vector)``, float64.
        """
        coefficients = self._float64_zeros(self._block, self._block)
        for index in range(self._block):
            vector = vectors[:, index : index + 1]
            length = lengths[:, index : index + 1]
            if index:
                vector, length = self._orthogonalize_within_block(
                    vector, length, filled, index, coefficients
                )
            lost = length[:, 0, 0] <= LOST * self._eps * self.scale
            coefficients[:, index, index] = length[:, 0, 0].where(~lost, 0)
            end = filled + index
            torch.div(vector, length.to(vector.dtype), out=self.basis[:, end : end + 1])
            if lost.any():
                self._replace(lost, end)
        return coefficients

    def _orthogonalize_within_block(
        self, vector: Tensor, length: Tensor, filled: int, index: int, coefficients: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Subtract the projection of one vector on the new rows before it.

        Where this removes most of a vector, what is left has more than round-off in the older
        rows, so a second pass is against the whole basis.
        """
        active = torch.ones_like(vector[..., :1])
        for first in (filled, 0):
            basis = self.basis[:, first : filled + index]
            projection = (vector @ basis.mT) * active
            vector = torch.baddbmm(vector, projection, basis, alpha=-1)
            coefficients[:, :index, index] += projection[:, 0, filled - first :].double()
            length_before, length = length, _norm(vector)
            active = (length < length_before / 2).to(vector.dtype)
            if not active.any():
                break
        return vector, length

    def _replace(self, lost: Tensor, end: int) -> None:
        """Replace the basis row at `end` by a random vector where the space is exhausted."""
        seed = 2 * (end - self._known) + self._seed_offset
        generator = torch.Generator(self.basis.device).manual_seed(seed)
        vector = torch.randn(
            self.basis.shape[-1],
            generator=generator,
            dtype=self.basis.dtype,
            device=self.basis.device,
        )
        vectors = vector.expand_as(self.basis[:, end : end + 1])
        vectors = self._project_out(vectors, end)
        vectors = self._project_out(vectors, end)
        unit_vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        self.basis[lost, end] = unit_vectors[lost, 0]

    def _project_out(self, vectors: Tensor, rows: int) -> Tensor:
        """Subtract the projection of vectors on the first rows of the basis."""
        basis = self.basis[:, :rows]
        return vectors - (vectors @ basis.mT) @ basis

    def _float64_zeros(self, *shape: int) -> Tensor:
        """Make zeros with a batch dimension."""
        return torch.zeros(self._batch_size, *shape, dtype=torch.float64, device=self.basis.device)

    @property
    def _batch_size(self) -> int:
        return len(self.basis)


def block_lanczos(
    product: Product, start: Tensor, steps: int, removed: Tensor | None = None
) -> KrylovSpace:
    """Build the Krylov spaces of some starts; arguments as in `BlockLanczos`."""
    return BlockLanczos(product, start, steps, removed).run()


def _norm(vectors: Tensor) -> Tensor:
    """Compute norms in float64, shape ``(…, 1)``: in float32, squares of small numbers vanish."""
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float64)
    return norm


def stochastic_lanczos_quadrature(
    product: Product, starts: Tensor, steps: int, top: int, gradient: Tensor | None = None
) -> Spectrum:
    """Estimate the spectrum of a symmetric operator.

    Args:
        product: maps vectors ``(vector, *run, d)`` to the operator's products with them.
        starts: normal draws, shape ``(1 + probe, *run, block, d)``. Eigenvectors are found from the
            first start and removed; the other starts are the probes of the quadrature.
        steps: Lanczos steps, with ``2 · steps · block ≤ d``.
        top: how many of the largest and of the smallest eigenvalues to return. The overlap is with
            the eigenvectors of the largest.
        gradient: vector whose overlap is computed, shape ``(*run, d)``.

    Returns:
        Leading shape ``(*run,)``; NaN where products are NaN.

    Raises:
        ValueError: if there are fewer than two probes or too many steps. With so many steps the
            exact spectrum is cheaper.
    """
    _check_effort(starts, steps)
    *_, block, d = starts.shape
    spaces = block_lanczos(product, starts[:1], steps)
    space = KrylovSpace(*(part[0] for part in spaces))
    ritz = RitzPairs(*(part[0] for part in _ritz_pairs(spaces)))
    deflation = _deflate(space, ritz)
    matrices = _probe_matrices(product, starts[1:], steps, deflation.rows)

    rows = steps * block
    half = rows // 2 // block * block
    values, weights = _nodes(matrices, block, d, deflation)
    coarse = _nodes(matrices[..., :half, :half], block, d, deflation)
    ends = _end_indices(rows, top)
    eps = torch.finfo(space.basis.dtype).eps
    noise = ROUND_OFF * eps * ritz.values.abs().amax(dim=-1, keepdim=True)
    spectrum = Spectrum(
        values,
        d,
        weights,
        coarse,
        ends=ritz.values[..., ends],
        residuals=ritz.residuals[..., ends].maximum(noise),
        block=block,
    )
    if gradient is None:
        return spectrum
    coordinates = (space.basis @ gradient[..., None]).squeeze(-1).double()
    half_vectors = eigenvectors(space.matrix[..., : rows // 2, : rows // 2])[1]
    overlap = _overlap(coordinates, ritz.vectors[..., :top], gradient)
    coarse_overlap = _overlap(coordinates[..., : rows // 2], half_vectors[..., :top], gradient)
    return spectrum._replace(overlap=overlap, overlap_margin=(overlap - coarse_overlap).abs())


class RitzPairs(NamedTuple):
    """Eigenpairs of the operator in a Krylov space.

    Attributes:
        values: descending, shape ``(…, row)``.
        vectors: columns in the basis of the space, shape ``(…, row, row)``.
        residuals: ‖A v − λ v‖, shape ``(…, row)``.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


class Deflation(NamedTuple):
    """Converged eigenpairs, by descending |λ|; runs with fewer are padded.

    Attributes:
        values: eigenvalues, 0 in the padding, shape ``(*run, eigenpair)``.
        is_converged: False in the padding, shape ``(*run, eigenpair)``.
        rows: eigenvectors, 0 in the padding, shape ``(*run, eigenpair, d)``.
    """

    values: Tensor
    is_converged: Tensor
    rows: Tensor


def _check_effort(starts: Tensor, steps: int) -> None:
    """Refuse too few probes and too many steps."""
    probes, (block, d) = len(starts) - 1, starts.shape[-2:]
    rows = steps * block
    if probes < 2 or 2 * rows > d:
        raise ValueError(
            f"{probes} probes and {rows} vectors in {d} dimensions: "
            "use at least 2 probes, and at most half as many vectors as dimensions"
        )


def _ritz_pairs(space: KrylovSpace) -> RitzPairs:
    """Compute the eigenpairs of the operator in a Krylov space."""
    block = space.below.shape[-1]
    values, vectors = eigenvectors(space.matrix)
    residuals = (space.below @ vectors[..., -block:, :]).norm(dim=-2)
    return RitzPairs(values, vectors, residuals)


def _deflate(space: KrylovSpace, ritz: RitzPairs) -> Deflation:
    """Select the converged eigenpairs."""
    converged = ritz.residuals <= CONVERGED * ritz.values.abs()
    order = (ritz.values.abs() * converged).nan_to_num().argsort(dim=-1, descending=True)
    order = order[..., : int(converged.sum(dim=-1).max())]
    is_converged = converged.gather(-1, order)
    columns = order[..., None, :].expand(*ritz.vectors.shape[:-1], -1)
    vectors = ritz.vectors.gather(-1, columns) * is_converged[..., None, :]
    rows = vectors.mT.to(space.basis.dtype) @ space.basis
    return Deflation(ritz.values.gather(-1, order) * is_converged, is_converged, rows)


def _probe_matrices(product: Product, probes: Tensor, steps: int, removed: Tensor) -> Tensor:
    """Compute the operator in the Krylov space of each probe, shape ``(probe, *run, row, row)``.

    Only as many probes as fit into `AT_ONCE` are in memory together.
    """
    block = probes.shape[-2]
    basis_rows = steps * block + removed.shape[-2]
    basis_size = basis_rows * probes[0].numel() // block
    batches = probes.split(max(1, AT_ONCE // basis_size))
    return torch.cat([block_lanczos(product, batch, steps, removed).matrix for batch in batches])


def _nodes(matrices: Tensor, block: int, d: int, deflation: Deflation) -> tuple[Tensor, Tensor]:
    """Compute the nodes and weights of a quadrature; the removed eigenpairs come first.

    Returns:
        Values and how many eigenvalues each stands for, shapes ``(probe, *run, node)``.
    """
    left = (d - deflation.is_converged.sum(dim=-1)).double()
    values, vectors = eigenvectors(matrices)
    weights = vectors[..., :block, :].square().sum(dim=-2) * (left / block)[..., None]
    shape = (*values.shape[:-1], deflation.values.shape[-1])
    removed_values = deflation.values.expand(shape)
    removed_weights = deflation.is_converged.to(deflation.values.dtype).expand(shape)
    return (
        torch.cat([removed_values, values], dim=-1),
        torch.cat([removed_weights, weights], dim=-1),
    )


def _end_indices(rows: int, top: int) -> Tensor:
    """List the indices of the largest and the smallest eigenvalues, at most half of each."""
    count = min(top, rows // 2)
    return torch.cat([torch.arange(count), torch.arange(rows - count, rows)])


def _overlap(coordinates: Tensor, vectors: Tensor, gradient: Tensor) -> Tensor:
    """Compute ‖P g‖² / ‖g‖² with P the projection on some eigenvectors.

    Args:
        coordinates: of the gradient in the basis of a Krylov space, shape ``(*run, row)``.
        vectors: eigenvectors in the same basis, shape ``(*run, row, eigenvector)``.
        gradient: g, shape ``(*run, d)``.

    Returns:
        Shape ``(*run,)``.
    """
    projection = coordinates[..., None, :] @ vectors
    total = gradient.double().square().sum(dim=-1)
    return projection.square().sum(dim=(-2, -1)) / total
