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
# A vector is orthogonalized against the whole space if an overlap with an older row may be above
# this many square roots of the machine precision.
SEMI_ORTHOGONAL = 0.5
# Rows have lost their orthogonality if a sum of overlaps is above this. Those that the recurrence
# allows are smaller by orders of magnitude.
PARALLEL = 0.1
# Times that a vector is orthogonalized against the same rows at most.
PASSES = 3
# Rows of a basis that become orthonormal together.
ROWS_AT_ONCE = 16
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
    """Block Lanczos iteration with reorthogonalization (Golub & Underwood 1977).

    To orthogonalize a vector against all rows means to read the basis twice, which may take longer
    than the product. It is only done where the space could lose its orthogonality: a recurrence
    bounds the overlaps of a new row with all older rows (Simon 1984, Mathematics of Computation 42,
    section 3). As long as they are below the square root of the machine precision ε, the matrix is
    that of an orthonormal basis of the same space up to ε, and no eigenvalue appears twice (same,
    theorem 4). `space` makes the basis orthonormal at the end. Blocks of several vectors read the
    basis once per block, and are always orthogonalized against all rows.

    All probes and runs form one batch dimension. Where a space is exhausted, the iteration
    continues from a random vector orthogonal to it, which has no weight in a quadrature.

    Attributes:
        basis: removed rows, then the rows found so far, shape ``(batch, known + row, d)``.
        matrix: the operator in the basis without the removed rows, shape ``(batch, row, row)``.
        scale: largest norm of a product so far, shape ``(batch,)``; stands for the operator's norm.
    """

    def __init__(
        self,
        product: Product,
        start: Tensor,
        steps: int,
        removed: Tensor | None = None,
        norm: Tensor | None = None,
        orthogonalize_always: bool = False,
    ) -> None:
        """Orthonormalize the start.

        Args:
            product: maps vectors ``(vector, *run, d)`` to the operator's products with them.
            start: shape ``(probe, *run, block, d)``.
            steps: number of steps; ``steps · block`` is at most d minus the removed rows.
            removed: orthonormal or zero rows that stay outside the space, shape
                ``(*run, row, d)``.
            norm: of the operator, shape ``(*run,)``, where a removed eigenvalue may be larger than
                any number that the iteration meets. Round-off of products is relative to it.
            orthogonalize_always: whether each row is orthogonalized against all rows.
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
        # Estimated overlaps of the last row, and of the row before it, with older rows.
        self._overlaps = self._float64_zeros(self._rows)
        self._overlaps_before = self._float64_zeros(self._rows)
        self._norm = self._float64_zeros()
        if norm is not None:
            self._norm += norm.expand(self._lead).reshape(-1)
        self._orthogonalize_always = orthogonalize_always
        self._skipped = False  # whether a row was not orthogonalized against all rows

    def run(self) -> Tensor:
        """Take all steps.

        Returns:
            The part of the last products outside the space, shape ``(batch, block, d)``.
        """
        for row in range(0, self._rows, self._block):
            outside = self._step(row)
        return outside

    def has_parallel_rows(self) -> bool:
        """Tell whether rows of the basis have lost their orthogonality.

        The recurrence that bounds overlaps counts on products that are off by round-off. Products
        of a network whose probabilities are 0 and 1 but for round-off are off by far more.
        """
        if not self._skipped:
            return False
        generator = torch.Generator().manual_seed(0)
        signs = 2.0 * torch.randint(2, (self._rows, 1), generator=generator) - 1
        signs = signs.to(self.basis).expand(len(self.basis), -1, -1)
        basis = self.basis[:, self._known :]
        overlaps = basis @ (basis.mT @ signs) - signs
        return bool((overlaps.abs() > PARALLEL).any())

    def space(self, outside: Tensor) -> KrylovSpace:
        """Describe the space by an orthonormal basis.

        Args:
            outside: as `run` returns it.
        """
        if self._skipped:
            self._orthonormalize()
        below = torch.linalg.qr(outside.mT.double(), mode="r").R
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

        The first pass is against the last two blocks, where almost all of the projection lies. Then
        follow the removed rows and, if need be, the whole space.

        Returns:
            The rest of the vectors and their norms.
        """
        recent = slice(max(self._known, filled - 2 * self._block), filled)
        if recent.start > 0:
            vectors, projection = self._subtract(vectors, recent)
            self._add_to_diagonal(projection, row)
            may_skip = self._block == 1 and not self._orthogonalize_always
            if may_skip and filled < self.basis.shape[1]:
                vectors, lengths = self._subtract_all(vectors, self._known)
                if self._is_semi_orthogonal(lengths, row):
                    self._skipped = True
                    return vectors, lengths
        return self._subtract_all(vectors, filled, row)

    def _subtract_all(
        self, vectors: Tensor, rows: int, row: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Subtract the projection on the first rows; again where too much of it may be left.

        Args:
            vectors: shape ``(batch, block, d)``.
            rows: number of rows of the basis.
            row: of the block that the vectors are products of, if it is among the rows.

        Returns:
            The rest of the vectors and their norms.
        """
        active: Tensor | None = None
        lengths = _norm(vectors)
        # A pass leaves the projection times round-off, or times the overlaps of the rows if larger.
        are_orthonormal = rows == self._known or not self._skipped
        share = 1.0 if are_orthonormal else 10 * self._eps**0.5
        for _ in range(PASSES if rows else 0):
            vectors, projection = self._subtract(vectors, slice(0, rows), active)
            if row is not None:
                self._add_to_diagonal(projection, row)
            lengths = _norm(vectors)
            is_left = (_norm(projection) > share * lengths).any(dim=1, keepdim=True)
            if not is_left.any():
                break
            active = is_left.to(vectors.dtype)
        return vectors, lengths

    def _subtract(
        self, vectors: Tensor, rows: slice, active: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Subtract the projection of vectors on some rows of the basis.

        Args:
            vectors: shape ``(batch, block, d)``.
            rows: of the basis.
            active: 1 where there is something to subtract, else 0; by default 1 everywhere.

        Returns:
            The rest of the vectors, and the projection, shape ``(batch, block, row)``.
        """
        basis = self.basis[:, rows]
        projection = vectors @ basis.mT
        if active is not None:
            projection = projection * active
        self.scale = _norm(projection)[..., 0].amax(dim=-1).maximum(self.scale)
        return torch.baddbmm(vectors, projection, basis, alpha=-1), projection

    def _add_to_diagonal(self, projection: Tensor, row: int) -> None:
        """Add the projection of products on their own block to the matrix."""
        block = slice(row, row + self._block)
        diagonal = projection[..., -self._block :].double()
        self.matrix[:, block, block] += (diagonal + diagonal.mT) / 2

    def _is_semi_orthogonal(self, lengths: Tensor, row: int) -> bool:
        """Estimate the overlaps of the next row with all rows, and compare them with the bound.

        With T the matrix, α and β its last diagonal and subdiagonal elements and ω the overlaps of
        a row, the next row has ω′ = (T ω − α ω − β ω_before) / length, plus round-off. The overlap
        with the row itself stays round-off.

        Args:
            lengths: norms of the vectors that become the next row, shape ``(batch, 1, 1)``.
            row: index of the last row.

        Returns:
            False if the next row must be orthogonalized. Its overlaps are then zero.
        """
        overlaps = self._overlaps[:, :row]
        T = self.matrix[:, :row, : row + 1]
        grown = (T @ self._overlaps[:, : row + 1, None]).squeeze(-1)
        grown = grown - self.matrix[:, row, row, None] * overlaps
        if row:
            grown = grown - self.matrix[:, row, row - 1, None] * self._overlaps_before[:, :row]
        noise = self._eps * self.scale.maximum(self._norm)[:, None]
        following = torch.zeros_like(self._overlaps)
        following[:, :row] = (grown + noise.copysign(grown)) / lengths[:, 0]
        following[:, row : row + 1] = noise / lengths[:, 0]
        # An overlap that is not finite makes no run of the batch more costly.
        limit = SEMI_ORTHOGONAL * self._eps**0.5
        is_semi_orthogonal = not (following.abs() > limit).any()
        if not is_semi_orthogonal:
            following = torch.zeros_like(following)
            following[:, : row + 1] = self._eps
        self._overlaps_before, self._overlaps = self._overlaps, following
        return is_semi_orthogonal

    def _orthonormalize(self) -> None:
        """Make a basis with small overlaps orthonormal, to first order in the overlaps.

        Later rows change first, so that each change uses the rows as they were.
        """
        end = self.basis.shape[1]
        for first in reversed(range(self._known, end, ROWS_AT_ONCE)):
            last = min(first + ROWS_AT_ONCE, end)
            rows, basis = self.basis[:, first:last], self.basis[:, :last]
            overlaps = rows @ basis.mT
            among = overlaps[..., first:]
            excess = (among.diagonal(dim1=-2, dim2=-1) - 1) / 2
            overlaps[..., first:] = among.tril(-1) + torch.diag_embed(excess)
            self.basis[:, first:last] = torch.baddbmm(rows, overlaps, basis, alpha=-1)

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
    product: Product,
    start: Tensor,
    steps: int,
    removed: Tensor | None = None,
    norm: Tensor | None = None,
) -> KrylovSpace:
    """Build the Krylov spaces of some starts; arguments as in `BlockLanczos`."""
    lanczos, outside = _iterate(product, start, steps, removed, norm)
    return lanczos.space(outside)


def _iterate(
    product: Product, start: Tensor, steps: int, removed: Tensor | None, norm: Tensor | None
) -> tuple[BlockLanczos, Tensor]:
    """Take all steps; again, and orthogonalize always, if rows have lost their orthogonality."""
    lanczos = BlockLanczos(product, start, steps, removed, norm)
    outside = lanczos.run()
    if lanczos.has_parallel_rows():
        lanczos = BlockLanczos(product, start, steps, removed, norm, orthogonalize_always=True)
        outside = lanczos.run()
    return lanczos, outside


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
    norm = ritz.values.abs().amax(dim=-1)
    matrices = _probe_matrices(product, starts[1:], steps, deflation.rows, norm)

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


def _probe_matrices(
    product: Product, probes: Tensor, steps: int, removed: Tensor, norm: Tensor
) -> Tensor:
    """Compute the operator in the Krylov space of each probe, shape ``(probe, *run, row, row)``.

    Only as many probes as fit into `AT_ONCE` are in memory together.
    """
    block = probes.shape[-2]
    basis_rows = steps * block + removed.shape[-2]
    basis_size = basis_rows * probes[0].numel() // block
    batches = probes.split(max(1, AT_ONCE // basis_size))
    matrices = []
    for batch in batches:
        # the basis is not used, so small overlaps may stay
        lanczos, _ = _iterate(product, batch, steps, removed, norm)
        matrices.append(lanczos.matrix.unflatten(0, batch.shape[:-2]))
    return torch.cat(matrices)


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
