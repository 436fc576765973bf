"""L2 Init, regenerative regularization: λ · ½ ‖θ − θ₀‖² (Kumar, Marklund & Van Roy, arXiv 2308.11958, equation 1)."""

from dataclasses import dataclass

from torch import Tensor

from plasticity.lockstep import Parameters, Pull
from plasticity.methods import Intervention


@dataclass
class Method(Intervention):
    """Each parameter is drawn toward its own initial value: pairs by index."""

    strength: Tensor

    def begin(self, parameters: Parameters) -> None:
        self.initial = parameters.flat.detach().clone()

    def penalty(self, parameters: Parameters) -> Pull:
        return Pull(self.strength, self.initial)
