"""Add noise: θ ← θ + strength · σ ε, with normal ε and the initial standard deviation σ.

This is the second half of shrink and perturb (Ash & Adams 2020, arXiv 1910.08475). Each tensor has
its own σ. Tensors that start as a constant (σ = 0), such as norm layers, do not change.
"""

import torch
from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
STRENGTH = "positive"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject, strength: float) -> dict[str, Tensor]:
    """Add the same noise for all strengths, times the strength."""
    generator, stds = subject.generator, subject.stds()
    noisy = {}
    for name, tensor in subject.parameters.items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        noisy[name] = tensor + strength * stds[name] * noise
    return subject.with_changes(noisy)
