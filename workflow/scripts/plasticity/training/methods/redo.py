"""ReDo: dormant units are given a new start (Sokar et al. 2023, arXiv 2302.12902, algorithm 1).

After every `period` steps, units whose mean magnitude on the batch is at most `threshold` times their layer's mean (equation
1) get incoming weights from their initial law, a bias as at the start and outgoing weights 0; the optimizer's means of all
these are cleared. Left free: the batch, that of the step (theirs: 64 samples of a replay buffer). The authors use 0.1 and
1,000 steps; Kumar et al. (arXiv 2308.11958) try thresholds 0, 0.01 and 0.1.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.hidden_units import Renewal
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    """A period of 0 is never."""

    CLAIM = "which units start anew"
    WHOLE = ["period"]
    WATCHES = True

    threshold: Tensor
    period: Tensor

    def setup(self, learner: Learner) -> None:
        self._renewal = Renewal(learner)

    def after_step(self, learner: Learner) -> None:
        due = (self.period > 0) & (learner.steps % self.period.clamp(min=1) == 0)
        if not due.any():
            return
        dormant = {}
        for units in self._renewal.units:
            magnitudes = units.magnitudes(learner.hidden)
            dormant[units.layer] = due[:, None] & (
                magnitudes <= self.threshold[:, None] * magnitudes.mean(dim=1, keepdim=True)
            )
        self._renewal.reinitialize(learner, dormant)
