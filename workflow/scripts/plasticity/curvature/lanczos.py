"""The spectrum of an operator of which only products with vectors are at hand.

Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38, section 3), on what is left of the operator once its
converged eigenvectors are taken out. In the spectra of networks a few eigenvalues hold most of the trace, and a random probe weighs each of
them with a relative error of √2; taken out, they count as exactly one each.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plasticity.curvature.spectrum import Spectrum, eigenvectors

CONVERGED = 1e-2  # residual of an eigenvector that is taken out, over its eigenvalue's magnitude: the eigenvalue's error is of its square
ROUND_OFF = 10  # machine precisions, of the largest magnitude, that products may be off by: a residual is not known better
AT_ONCE = (
    2**25
)  # numbers of the probes' bases that are in memory at a time, if they are more than one's
Product = Callable[[Tensor], Tensor]


class Quadrature(NamedTuple):
    """How much is spent on an estimate.

    Attributes:
        steps: of each Krylov space.
        probes: random starts that the quadrature is a mean over, at least 2: their differences are its error.
        block: vectors of a start, which share its Krylov space; so many equal eigenvalues are told apart.
    """

    steps: int = 64
    probes: int = 4
    block: int = 1


class Krylov(NamedTuple):
    """A Krylov space.

    Attributes:
        basis: orthonormal, a vector a row, shape ``(…, row, d)``.
        matrix: the operator in it, shape ``(…, row, row)``, float64.
        below: what leads out of it: the coefficients of A · (last block) beyond the space, shape ``(…, block, block)``.
    """

    basis: Tensor
    matrix: Tensor
    below: Tensor


def stochastic_lanczos_quadrature(
    product: Product, starts: Tensor, steps: int, top: int, gradient: Tensor | None = None
) -> Spectrum:
    """An estimate of the spectrum of a symmetric operator.

    Args:
        product: of the operator with vectors of shape ``(vector, …, d)``.
        starts: normal draws, shape ``(1 + probe, …, block, d)``: from the first, eigenvectors are found and taken out.
        steps: of each Krylov space, so many that ``2 · steps · block ≤ d``.
        top: how many of the largest eigenvalues, and of the smallest, are kept, with the span of the largest ones' eigenvectors.
        gradient: whose overlap with that span is wanted, shape ``(…, d)``.

    Returns:
        Of shape ``(…)``; NaN where products are.

    Raises:
        ValueError: fewer than two probes, or too many steps: so small an operator has an exact spectrum for less.
    """
    (count, *_, block, d), rows = starts.shape, steps * starts.shape[-2]
    if count < 3 or 2 * rows > d:
        raise ValueError(
            f"{count - 1} probes and {rows} vectors in {d} dimensions: there must be 2 probes, and twice as many dimensions"
        )
    first = block_lanczos(product, starts[:1], steps)
    values, vectors = eigenvectors(first.matrix)
    residuals = (first.below @ vectors[..., -block:, :]).norm(dim=-2)
    values, vectors, residuals, basis = values[0], vectors[0], residuals[0], first.basis[0]
    converged = residuals <= CONVERGED * values.abs()
    order = (
        (values.abs() * converged)
        .nan_to_num()
        .argsort(dim=-1, descending=True)[..., : int(converged.sum(dim=-1).max())]
    )
    taken = converged.gather(-1, order)
    chosen = (
        vectors.gather(-1, order[..., None, :].expand(*vectors.shape[:-1], -1))
        * taken[..., None, :]
    )
    removed = chosen.mT.to(basis.dtype) @ basis
    some = max(1, AT_ONCE // ((rows + removed.shape[-2]) * starts[0].numel() // block))
    matrices = torch.cat(
        [block_lanczos(product, start, steps, removed).matrix for start in starts[1:].split(some)]
    )
    left = (d - taken.sum(dim=-1)).double()

    def nodes(size: int) -> tuple[Tensor, Tensor]:
        """Those of a part of the space, with what was taken out before them."""
        found, of_start = eigenvectors(matrices[..., :size, :size])
        weights = of_start[..., :block, :].square().sum(dim=-2) * (left / block)[..., None]
        shape = (*found.shape[:-1], order.shape[-1])
        known = (
            (values.gather(-1, order) * taken).expand(shape),
            taken.to(values.dtype).expand(shape),
        )
        return torch.cat([known[0], found], dim=-1), torch.cat([known[1], weights], dim=-1)

    ends = torch.cat(
        [torch.arange(min(top, rows // 2)), torch.arange(rows - min(top, rows // 2), rows)]
    )
    fine, coarse = nodes(rows), nodes(rows // 2 // block * block)
    noise = ROUND_OFF * torch.finfo(basis.dtype).eps * values.abs().amax(dim=-1, keepdim=True)
    found = Spectrum(
        fine[0], d, fine[1], coarse, values[..., ends], residuals[..., ends].maximum(noise)
    )
    if gradient is None:
        return found
    along = (basis @ gradient[..., None]).squeeze(-1).double()
    _, half = eigenvectors(first.matrix[0, ..., : rows // 2, : rows // 2])
    overlaps = [
        (along[..., None, :len_] @ of_top[..., :top]).square().sum(dim=(-2, -1))
        / gradient.double().square().sum(dim=-1)
        for len_, of_top in ((rows, vectors), (rows // 2, half))
    ]
    return found._replace(overlap=overlaps[0], overlap_error=(overlaps[0] - overlaps[1]).abs())


def block_lanczos(
    product: Product, start: Tensor, steps: int, removed: Tensor | None = None
) -> Krylov:
    """Block Lanczos with full reorthogonalisation.

    Where the space is exhausted, it goes on from a drawn vector that is orthogonal to it: with no weight in a quadrature.

    Args:
        product: of the operator with vectors of shape ``(vector, …, d)``.
        start: shape ``(probe, …, block, d)``.
        steps: how many; so many times `block` are at most d less what is removed.
        removed: orthonormal rows (or zeros) that the space is to be orthogonal to, shape ``(…, row, d)``.

    Returns:
        Of shape ``(probe, …)``, with ``steps · block`` rows.
    """
    *lead, block, d = start.shape
    further = (
        removed is not None
    )  # and so draws others: what the first space drew may lie in the removed rows
    removed = start.new_zeros(*lead[1:], 0, d) if removed is None else removed
    known, rows, batch = removed.shape[-2], steps * block, math.prod(lead)
    basis = start.new_empty(*lead, known + rows, d)
    basis[..., :known, :] = removed
    basis = basis.flatten(0, -3)
    matrix = torch.zeros(batch, rows, rows, dtype=torch.float64, device=start.device)
    scale = torch.zeros(batch, dtype=torch.float64, device=start.device)

    def norm(vectors: Tensor) -> Tensor:
        """In float64: squares of small numbers are zero in float32."""
        found: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float64)
        return found

    def orthonormal(vectors: Tensor, lengths: Tensor, filled: int) -> Tensor:
        """Put vectors, orthogonal to the first rows already, behind them; their coefficients in the new rows, ``(batch, new, vector)``."""
        coefficients = torch.zeros(batch, block, block, dtype=torch.float64, device=start.device)
        for place in range(block):
            one, end = vectors[:, place : place + 1], filled + place
            length, again = lengths[:, place : place + 1], torch.ones_like(one[..., :1])
            for first in (filled, 0) if place else ():
                shares = (one @ basis[:, first:end].mT) * again
                one = torch.baddbmm(one, shares, basis[:, first:end], alpha=-1)
                coefficients[:, :place, place] += shares[:, 0, filled - first :].double()
                before, length = length, norm(one)
                again = (length < before / 2).to(
                    one.dtype
                )  # of what is left, other rows have more than round-off
                if not again.any():
                    break
            lost = length[:, 0, 0] <= 100 * torch.finfo(start.dtype).eps * scale
            coefficients[:, place, place] = length[:, 0, 0].where(~lost, 0)
            torch.div(one, length.to(one.dtype), out=basis[:, end : end + 1])
            if lost.any():
                draw = torch.Generator(start.device).manual_seed(2 * (end - known) + further)
                spare = torch.randn(
                    d, generator=draw, dtype=one.dtype, device=one.device
                ).expand_as(one)
                for _ in range(2):
                    spare = spare - (spare @ basis[:, :end].mT) @ basis[:, :end]
                basis[lost, end] = (spare / spare.norm(dim=-1, keepdim=True))[lost, 0]
        return coefficients

    start = start.flatten(0, -3)
    for _ in range(2 if known else 0):
        start = start - (start @ basis[:, :known].mT) @ basis[:, :known]
    orthonormal(start, norm(start), known)
    for row in range(0, rows, block):
        filled = known + row + block
        newest = basis[:, filled - block : filled].unflatten(0, lead).movedim(-2, 1).flatten(0, 1)
        vectors = (
            product(newest).unflatten(0, (lead[0], block)).movedim(1, -2).reshape(batch, block, d)
        )
        again = torch.ones_like(vectors[:, :1, :1])
        for first in (
            max(known, filled - 2 * block),
            0,
            0,
        ):  # what is large, then what is left of it in all directions
            near = (vectors @ basis[:, first:filled].mT) * again
            vectors = torch.baddbmm(vectors, near, basis[:, first:filled], alpha=-1)
            diagonal = near[..., -block:].double()
            matrix[:, row : row + block, row : row + block] += (diagonal + diagonal.mT) / 2
            scale = norm(near)[..., 0].amax(dim=-1).maximum(scale)
            if first == 0:  # twice is enough, unless most of it was elsewhere
                lengths = norm(vectors)
                again = (norm(near) > lengths).any(dim=1, keepdim=True).to(vectors.dtype)
                if not again.any():
                    break
        if row + block < rows:
            below = orthonormal(vectors, lengths, filled)
            matrix[:, row + block : row + 2 * block, row : row + block] = below
            matrix[:, row : row + block, row + block : row + 2 * block] = below.mT
    below = torch.linalg.qr(vectors.mT.double(), mode="r").R
    found = (basis[:, known:], matrix, below)
    return Krylov(*(one.unflatten(0, lead) for one in found))
