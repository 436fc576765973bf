"""Numbers that sum up a spectrum. Definitions are exact: several quantities go by the same name in public code."""

import torch
from torch import Tensor

SUMMARY = {
    "effective_rank": "fewest eigenvalues whose magnitudes reach 0.99 of the total",
    "stable_rank": "trace over the largest eigenvalue",
    "entropy_rank": "exponential of the entropy of the eigenvalues as shares",
    "epsilon_rank": "eigenvalues above 1e-3 of the largest",
    "top_eigenvalue": "largest eigenvalue",
    "trace": "sum of the eigenvalues",
}


def eigenvalues(matrices: Tensor) -> Tensor:
    """Eigenvalues of positive semi-definite matrices, descending; round-off below zero is zero.

    Args:
        matrices: shape ``(…, n, n)``.

    Returns:
        Shape ``(…, n)``; NaN for a matrix that has entries which are not finite, without harm to the others.
    """
    finite = matrices.sum(dim=(-2, -1)).isfinite()
    if not finite.all():  # LAPACK would refuse the whole batch
        matrices = matrices.where(finite[..., None, None], 0)
    values: Tensor = torch.linalg.eigvalsh(matrices).flip(-1).clamp(min=0)
    return values.where(finite[..., None], torch.nan)


def effective_rank(values: Tensor, level: float = 0.99) -> Tensor:
    """Fewest values whose magnitudes add up to `level` of the total (Kumar et al. 2020, srank with δ = 1 − level).

    Args:
        values: eigenvalues of an operator or singular values of features, shape ``(…, n)``, any order and sign.
        level: share of the total, in (0, 1].

    Returns:
        Shape ``(…)``; 0 where every value is zero, NaN where any is.
    """
    magnitudes = values.abs().sort(dim=-1, descending=True).values
    captured = magnitudes.cumsum(dim=-1)
    rank = (captured < level * captured[..., -1:]).sum(dim=-1) + (captured[..., -1] > 0)
    return rank.to(values.dtype).where(values.isfinite().all(dim=-1), torch.nan)


def stable_rank(values: Tensor) -> Tensor:
    """Trace over largest eigenvalue, of a positive semi-definite operator; shape ``(…, n)`` → ``(…)``, NaN where all are zero."""
    return values.sum(dim=-1) / values.amax(dim=-1)


def entropy_rank(values: Tensor) -> Tensor:
    """exp(−Σ pᵢ log pᵢ) with pᵢ = |λᵢ| / Σ|λ| (Roy & Vetterli 2007); shape ``(…, n)`` → ``(…)``, NaN where all are zero."""
    shares = values.abs() / values.abs().sum(dim=-1, keepdim=True)
    entropy: Tensor = torch.special.entr(shares).sum(dim=-1)
    return entropy.exp()


def epsilon_rank(values: Tensor, epsilon: float = 1e-3) -> Tensor:
    """How many magnitudes are above `epsilon` of the largest; shape ``(…, n)`` → ``(…)``, NaN where any value is."""
    magnitudes = values.abs()
    rank = (magnitudes > epsilon * magnitudes.amax(dim=-1, keepdim=True)).sum(dim=-1)
    return rank.to(values.dtype).where(values.isfinite().all(dim=-1), torch.nan)


def summary(values: Tensor) -> dict[str, Tensor]:
    """Everything that is kept of a positive semi-definite operator's spectrum, by its name in the netCDF contract.

    Args:
        values: eigenvalues, descending, shape ``(…, n)``.
    """
    return {
        "effective_rank": effective_rank(values),
        "stable_rank": stable_rank(values),
        "entropy_rank": entropy_rank(values),
        "epsilon_rank": epsilon_rank(values),
        "top_eigenvalue": values[..., 0],
        "trace": values.sum(dim=-1),
        "eigenvalue": values,
    }
