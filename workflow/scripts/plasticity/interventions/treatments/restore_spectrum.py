"""Give each weight matrix its initial singular values: U S Vᵀ ← U S⁰ Vᵀ.

Singular vectors stay. The kernel of a convolution is a matrix with a row per output channel.
Biases, norm layers and position embeddings do not change.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Restore the singular values of linear layers and convolutions, by rank."""
    initial = subject.matrices(subject.initial)
    restored = {}
    for name, matrix in subject.matrices(subject.parameters).items():
        U, _, Vt = torch.linalg.svd(matrix, full_matrices=False)
        restored[name] = U * torch.linalg.svdvals(initial[name]) @ Vt
    return subject.with_changes(restored)
