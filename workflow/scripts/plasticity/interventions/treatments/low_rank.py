"""Remove the smallest singular values of each weight matrix, and keep its Frobenius norm.

`strength` is the share of singular values that are removed; at least one stays. The kernel of a
convolution is a matrix with a row per output channel. Other tensors do not change.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "harmful"
STRENGTH = "share"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Truncate the weights of linear layers and convolutions."""
    truncated = {}
    for name, matrix in subject.matrices(subject.parameters).items():
        U, S, Vt = torch.linalg.svd(matrix, full_matrices=False)
        rank = max(1, len(S) - round(strength * len(S)))
        if rank < len(S) and S[0] > 0:
            scale = S.norm() / S[:rank].norm()
            truncated[name] = U[:, :rank] * (scale * S[:rank]) @ Vt[:rank]
    return subject.with_changes(truncated)
