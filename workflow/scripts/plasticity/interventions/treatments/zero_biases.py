"""Set all biases to 0, those of norm layers included: b ← 0."""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Change parameters that are called `bias`. Position embeddings are not."""
    zeros = {
        name: torch.zeros_like(tensor)
        for name, tensor in subject.parameters.items()
        if name.rpartition(".")[2] == "bias"
    }
    return subject.with_changes(zeros)
