"""Self-normalized resets: reset units that are silent for unusually long (Farias & Jozefiak 2024).

arXiv 2410.20098. A unit fires in a step if it is not zero on the whole batch. Its age is the number
of steps since it last fired. It is reset when its age reaches the 1 − `rejection` quantile of its
own waiting times: incoming weights are drawn again, the bias gets its initial value, outgoing
weights become 0, and the optimizer's means of all these are cleared.

Our choice is the estimate of the quantile. The authors keep a histogram of each unit's waiting
times, or their mean. Here they have an exponential distribution with their mean so far, starting
from one wait of one step. So the quantile is −ln(rejection) · mean. A rejection of 0 means never.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.hidden_units import UnitResetter, Units
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """Only with relu, where units can be silent. A reset also clears a unit's waiting times."""

    REFUSES = {"activation": ["leaky_relu", "tanh", "identity", "gelu", "sin", "crelu", "fourier"]}
    CLAIM = "which units are reset"
    AT_MOST = {"rejection": 1}
    USES_ACTIVATIONS = True

    rejection: Tensor

    def setup(self, learner: Learner) -> None:
        self._resetter = UnitResetter(learner)
        flat = learner.parameters.flat.detach()
        self.age = {
            units.layer: flat.new_zeros(len(flat), units.width) for units in self._resetter.units
        }
        self.waited = {layer: torch.ones_like(age) for layer, age in self.age.items()}
        self.waits = {layer: torch.ones_like(age) for layer, age in self.age.items()}

    def state(self) -> dict[str, Tensor]:
        numbers = {"age": self.age, "waited": self.waited, "waits": self.waits}
        return {
            f"{name}_{layer}": values
            for name, of_layers in numbers.items()
            for layer, values in of_layers.items()
        }

    def on_task_start(self, learner: Learner) -> None:
        self._resetter.start_task(learner)

    def after_step(self, learner: Learner) -> None:
        chosen = {units.layer: self._choose(units, learner) for units in self._resetter.units}
        self._resetter.reinitialize(learner, chosen)

    def _choose(self, units: Units, learner: Learner) -> Tensor:
        """Update one layer's waiting times and choose units to reset, shape ``(run, unit)``."""
        age, waited, waits = (
            numbers[units.layer] for numbers in (self.age, self.waited, self.waits)
        )
        fires = units.magnitudes(learner.hidden) != 0  # NaN of a diverged run counts as firing
        age += 1
        waited += age * fires
        waits += fires
        age.masked_fill_(fires, 0)
        quantile = -self.rejection.log()[:, None] * waited / waits
        chosen = ~fires & (age >= quantile)
        age.masked_fill_(chosen, 0)
        waited.masked_fill_(chosen, 1)
        waits.masked_fill_(chosen, 1)
        return chosen
