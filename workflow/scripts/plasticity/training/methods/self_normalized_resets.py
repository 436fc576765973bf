"""Self-normalised resets: a unit that is silent for longer than its own past allows starts anew (Farias & Jozefiak 2024, arXiv 2410.20098).

A unit fires in a step if it is not zero on all of the batch. Its age is the number of steps since it last did. It is reset
when its age reaches the 1 − `rejection` quantile of its own waiting times: incoming weights from their initial law, bias as
at the start, outgoing weights 0, forgotten by the optimizer.

Left free is how the quantile is estimated. The authors keep a histogram of each unit's waits, or their mean; here waits have
an exponential law with their mean so far (from one wait of one step on), so the quantile is −ln(rejection) · mean. 0 is never.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.hidden_units import Renewal
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Only where units can be silent: with relu. The past of a unit that starts anew is forgotten, too."""

    REFUSES = {"activation": ["leaky_relu", "tanh", "identity", "gelu", "sin", "crelu", "fourier"]}
    CLAIM = "which units start anew"
    AT_MOST = {"rejection": 1}
    WATCHES = True

    rejection: Tensor

    def setup(self, learner: Learner) -> None:
        self._renewal = Renewal(learner)
        like = learner.parameters.flat.detach()
        self.age = {
            units.layer: like.new_zeros(len(like), units.width) for units in self._renewal.units
        }
        self.waited = {layer: torch.ones_like(age) for layer, age in self.age.items()}
        self.waits = {layer: torch.ones_like(age) for layer, age in self.age.items()}

    def state(self) -> dict[str, Tensor]:
        kept = {"age": self.age, "waited": self.waited, "waits": self.waits}
        return {
            f"{name}_{layer}": values
            for name, of_layers in kept.items()
            for layer, values in of_layers.items()
        }

    def after_step(self, learner: Learner) -> None:
        silent = {}
        for units in self._renewal.units:
            age, waited, waits = (
                self.age[units.layer],
                self.waited[units.layer],
                self.waits[units.layer],
            )
            fires = units.magnitudes(learner.hidden) != 0  # a diverged run is not silent
            age += 1
            waited += age * fires
            waits += fires
            age.masked_fill_(fires, 0)
            silent[units.layer] = ~fires & (age >= -self.rejection.log()[:, None] * waited / waits)
            age.masked_fill_(silent[units.layer], 0)
            waited.masked_fill_(silent[units.layer], 1)
            waits.masked_fill_(silent[units.layer], 1)
        self._renewal.reinitialize(learner, silent)
