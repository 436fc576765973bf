"""Give each tensor its initial values, by rank: w₍ᵢ₎ ← w⁰₍ᵢ₎.

This is the fixed point of Wasserstein regularization (Lewandowski et al. 2023, arXiv 2312.00246),
which compares biases and norm layers as well. Tensors that start as a constant become it.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Replace the i-th smallest value by the i-th smallest initial value."""
    restored = {}
    for name, tensor in subject.parameters.items():
        order = tensor.flatten().argsort(stable=True)
        values = torch.empty_like(order, dtype=tensor.dtype)
        values[order] = subject.initial[name].flatten().sort().values
        restored[name] = values
    return subject.with_changes(restored)
