"""Scale each tensor to its initial Frobenius norm: W ← W · ‖W⁰‖ / ‖W‖.

Weights of norm layers are scaled, too. A tensor does not change if its norm is 0 or was 0 at first,
as that of most biases.
"""

from torch import Tensor

from plasticity.interventions.subject import Subject

FAMILY = "restoring"
OPTIMIZER_STATE = "kept"


def treat(subject: Subject) -> dict[str, Tensor]:
    """Scale the tensors one by one."""
    scaled = {}
    for name, tensor in subject.parameters.items():
        norm, initial_norm = tensor.norm(), subject.initial[name].norm()
        if norm > 0 and initial_norm > 0:
            scaled[name] = tensor * (initial_norm / norm)
    return subject.with_changes(scaled)
