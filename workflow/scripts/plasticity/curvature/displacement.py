"""How far the top eigenvectors of the Fisher turn when the task changes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plasticity.config.models import Curvature
from plasticity.curvature.gram import GramMatrices
from plasticity.curvature.operator import round_off
from plasticity.storage.netcdf import RUN, Variable

OPERATOR = "fisher"
POINTS = ("previous", "next")
NAME = "eigenspace_displacement"


def table(curvature: Curvature) -> dict[str, Variable]:
    """Describe the displacement, if it is measured."""
    if not is_measured(curvature):
        return {}
    meaning = (
        "1 − mean squared cosine of the angles between the spans of the top "
        f"{curvature.top} eigenvectors of the empirical Fisher on the previous and on the next "
        "task's data"
    )
    return {NAME: Variable((*RUN, "block"), meaning)}


def is_measured(curvature: Curvature) -> bool:
    """Tell whether the Fisher has spectra on the data of the previous and of the next task."""
    if OPERATOR not in curvature.operators:
        return False
    return set(POINTS) <= set(curvature.operators[OPERATOR].evaluation_points)


class TopEigenvectors(NamedTuple):
    """The largest eigenvalues and eigenvectors of a Gram matrix.

    Attributes:
        values: eigenvalues, descending, shape ``(*run, n)``; more than there are vectors, if the
            matrix has more rows.
        vectors: eigenvectors of the largest, as columns, shape ``(*run, n, k)``.
    """

    values: Tensor
    vectors: Tensor

    def of_run(self, run: int) -> "TopEigenvectors":
        """Select one run."""
        return TopEigenvectors(self.values[run], self.vectors[run])

    def of_block(self, block: int) -> "TopEigenvectors":
        """Select one block, if all blocks are in one tensor."""
        return TopEigenvectors(self.values[..., block, :], self.vectors[..., block, :, :])


def of_blocks(
    grams: Sequence[GramMatrices],
    eigenvectors: Sequence[TopEigenvectors],
    blocks: Mapping[str, Sequence[str]],
    top: int,
) -> Tensor:
    """Compute the displacement of each block.

    Args:
        grams: of the samples of the previous and of the next task.
        eigenvectors: of all blocks on these samples, shapes ``(*run, block, …)``.
        blocks: layers of each block; none for a block that is not measured.
        top: number of eigenvectors k.

    Returns:
        Shape ``(*run, block)``; NaN for a block that is not measured.
    """
    displacements = []
    for index, layers in enumerate(blocks.values()):
        previous, following = [one.of_block(index) for one in eigenvectors]
        products = grams[0].products_with(grams[1], layers)
        displacements.append(eigenspace_displacement(products, previous, following, top))
    return torch.stack(displacements, dim=-1)


def eigenspace_displacement(
    products: Tensor, previous: TopEigenvectors, following: TopEigenvectors, top: int
) -> Tensor:
    """Compute 1 − (1/k) Σ cos² of the principal angles between two spans of k eigenvectors.

    It is 0 if the spans are equal, and 1 if they are orthogonal. With gᵢ the gradients of the
    previous task's samples and u an eigenvector of their Gram matrix with the eigenvalue λ, the
    Fisher has the eigenvector Σᵢ uᵢ gᵢ / √(n λ). So all products of the eigenvectors of two tasks
    follow from the products gᵢ·hⱼ. The sum of their squares is Σ cos² (Björck & Golub 1973,
    Mathematics of Computation 27, theorem 1).

    Source: arXiv 2606.30226 has the displacement of the leading eigenvectors during training. Ours
    is between the data of two tasks at the same parameters. So it does not depend on which tasks
    are measured.

    Args:
        products: gᵢ·hⱼ / n with the gradients hⱼ of the next task's samples, shape
            ``(*run, n, n)``.
        previous: of the Gram matrix of the previous task's samples.
        following: of the Gram matrix of the next task's samples.
        top: k.

    Returns:
        Shape ``(*run,)``; NaN where a span is not known: fewer than k eigenvalues are above
        round-off, or the k-th equals the next one.
    """
    if previous.vectors.shape[-1] < top:
        return torch.full_like(previous.values[..., 0], torch.nan)
    is_known = _has_span(previous.values, top) & _has_span(following.values, top)
    scales = previous.values[..., :top, None] * following.values[..., None, :top]
    cosines = previous.vectors.mT @ products @ following.vectors / scales.sqrt()
    displacement = 1 - cosines.square().sum(dim=(-2, -1)) / top
    return displacement.clamp(min=0, max=1).where(is_known, torch.nan)


def _has_span(values: Tensor, top: int) -> Tensor:
    """Tell whether the top eigenvectors have a span that is known, shape ``(*run,)``."""
    noise = round_off(values).squeeze(-1)
    others = values[..., top:]
    following = others[..., 0] if others.shape[-1] else torch.zeros_like(noise)
    return values[..., top - 1] - following > noise
