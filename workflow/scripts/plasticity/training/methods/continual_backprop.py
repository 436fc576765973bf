"""Continual backprop: slowly replace the least useful units (Dohare et al. 2024, Nature 632).

This is their algorithm 1. After each step, for each unit of a layer:

- utility u ← decay · u + (1 − decay) · |h| · Σ|w_out|, where |h| is the mean magnitude on the batch
  before the step, and w_out are the outgoing weights after it;
- û = u / (1 − decay^age) corrects the utility for the unit's age;
- a unit older than `maturity` steps is mature.

`rate` times the number of mature units adds up over steps. For each whole unit in this sum, the
mature unit of lowest û is reset: incoming weights are drawn again, and outgoing weights, age and u
become 0. As in the authors' code, new weights have He's uniform distribution, whatever the network
started with, and biases become 0. With the option `new_weights: drawn` they have the network's own
initial distribution.

Our choices: one step uses one batch (in the paper, one sample). The optimizer counts steps per run,
so Adam's bias correction does not restart for a unit. The next layer's bias does not change, as in
the authors' code, whose correction is zero there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.hidden_units import UnitResetter, Units
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default


@dataclass
class Method(Intervention):
    """Maturity and decay as in the paper.

    Its rate is 1e-4; Kumar et al. (arXiv 2308.11958) try 1e-1 to 1e-6.
    """

    CLAIM = "which units are reset"
    AT_MOST = {"rate": 1, "decay": 0.9999}
    WHOLE = ["maturity"]
    CHOICES = {"new_weights": ["he_uniform", "drawn", "stored"]}
    USES_ACTIVATIONS = True

    rate: Tensor
    maturity: Tensor = default(100)
    decay: Tensor = default(0.99)
    new_weights: str = "he_uniform"

    def setup(self, learner: Learner) -> None:
        self._resetter = UnitResetter(learner, self.new_weights)
        flat = learner.parameters.flat.detach()
        runs = len(flat)
        self.utility = {
            units.layer: flat.new_zeros(runs, units.width) for units in self._resetter.units
        }
        self.age = {layer: torch.zeros_like(utility) for layer, utility in self.utility.items()}
        self.due = {layer: flat.new_zeros(runs, 1) for layer in self.utility}

    def state(self) -> dict[str, Tensor]:
        numbers = {"utility": self.utility, "age": self.age, "due": self.due}
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
        """Update the numbers of one layer and choose units to reset, shape ``(run, unit)``."""
        utility, age, due = (numbers[units.layer] for numbers in (self.utility, self.age, self.due))
        decay = self.decay[:, None]
        age += 1
        contribution = units.magnitudes(learner.hidden) * _outgoing_magnitudes(units, learner)
        utility.lerp_(contribution, 1 - decay)
        mature = age > self.maturity[:, None]
        due += self.rate[:, None] * mature.sum(dim=1, keepdim=True)
        corrected = (utility / (1 - decay**age)).where(mature, torch.inf)
        rank = corrected.argsort(dim=1, stable=True).argsort(dim=1)
        chosen = mature & (rank < due.floor())
        due -= due.floor()
        age.masked_fill_(chosen, 0)
        utility.masked_fill_(chosen, 0)
        return chosen


def _outgoing_magnitudes(units: Units, learner: Learner) -> Tensor:
    """Sum the magnitudes of each unit's outgoing weights, shape ``(run, unit)``."""
    sums = []
    for name in units.outgoing:
        columns = units.columns(learner.parameters.tensors[name].detach())
        sums.append(columns.abs().sum(dim=(1, 2, 4)))
    return torch.stack(sums).sum(dim=0)
