"""Continual backprop: at a slow rate, the least useful of the mature units start anew (Dohare et al. 2024, Nature 632, algorithm 1).

After each step, per layer: u ← decay · u + (1 − decay) · |h| · Σ|w_out|, with |h| the mean magnitude on the batch before the
step and the weights after it; û = u / (1 − decay^age). Units older than `maturity` steps are mature. `rate` times their
number adds up, and as many units as it holds, those of lowest û, get incoming weights from their initial law, outgoing
weights 0, age 0 and u 0, and the optimizer forgets them.

Left free: one batch is one step (there a batch is one sample); the optimizer counts a run's steps for all its parameters together, so
Adam's bias correction does not start anew for a unit; the next layer's bias is left alone, as in the authors' code, whose
correction is of zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from plasticity.training.hidden_units import Renewal
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, default


@dataclass
class Method(Intervention):
    """The authors' maturity and decay; their rate is 1e-4, Kumar et al. (arXiv 2308.11958) try 1e-1 to 1e-6."""

    CLAIM = "which units start anew"
    AT_MOST = {"rate": 1, "decay": 0.9999}
    WHOLE = ["maturity"]
    WATCHES = True

    rate: Tensor
    maturity: Tensor = default(100)
    decay: Tensor = default(0.99)

    def setup(self, learner: Learner) -> None:
        self._renewal = Renewal(learner)
        like = learner.parameters.flat.detach()
        self.utility = {
            units.layer: like.new_zeros(len(like), units.width) for units in self._renewal.units
        }
        self.age = {layer: torch.zeros_like(utility) for layer, utility in self.utility.items()}
        self.due = {layer: like.new_zeros(len(like), 1) for layer in self.utility}

    def state(self) -> dict[str, Tensor]:
        kept = {"utility": self.utility, "age": self.age, "due": self.due}
        return {
            f"{name}_{layer}": values
            for name, of_layers in kept.items()
            for layer, values in of_layers.items()
        }

    def after_step(self, learner: Learner) -> None:
        rate, maturity, decay = (
            values[:, None] for values in (self.rate, self.maturity, self.decay)
        )
        chosen = {}
        for units in self._renewal.units:
            age, utility, due = (
                self.age[units.layer],
                self.utility[units.layer],
                self.due[units.layer],
            )
            outgoing = [
                units.columns(learner.parameters.tensors[name].detach()).abs().sum(dim=(1, 2, 4))
                for name in units.taken_by
            ]
            age += 1
            utility.lerp_(
                units.magnitudes(learner.hidden) * torch.stack(outgoing).sum(dim=0), 1 - decay
            )
            mature = age > maturity
            due += rate * mature.sum(dim=1, keepdim=True)
            corrected = (utility / (1 - decay**age)).where(mature, torch.inf)
            place = corrected.argsort(dim=1, stable=True).argsort(dim=1)
            chosen[units.layer] = mature & (place < due.floor())
            due -= due.floor()
            for numbers in (age, utility):
                numbers.masked_fill_(chosen[units.layer], 0)
        self._renewal.reinitialize(learner, chosen)
