"""ReDo: reset dormant units (Sokar et al. 2023, arXiv 2302.12902, algorithm 1).

After every `period` steps, a unit is reset if its mean magnitude on the batch is at most
`threshold` times the mean of its layer (equation 1). Incoming weights and the bias are drawn again
from the initial distribution, outgoing weights become 0, and the optimizer's means of all these are
cleared.

Kumar et al. (arXiv 2308.11958) give a unit its own initial values back and keep the means: these
are the options `new_weights: stored` and `means: kept`.

Our choice is the batch of the step; the authors use 64 samples of a replay buffer. They use a
threshold of 0.1 and 1,000 steps. Kumar et al. try thresholds 0, 0.01 and 0.1.
"""

from dataclasses import dataclass

from torch import Tensor

from plasticity.training.hidden_units import UnitResetter
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, Schedule


@dataclass
class Method(Intervention):
    """A period of 0 means never."""

    CLAIM = "which units are reset"
    WHOLE = ["period"]
    CHOICES = {"new_weights": ["drawn", "he_uniform", "stored"], "means": ["cleared", "kept"]}
    USES_ACTIVATIONS = True

    threshold: Tensor
    period: Tensor
    new_weights: str = "drawn"
    means: str = "cleared"

    def setup(self, learner: Learner) -> None:
        clears_means = self.means == "cleared"
        self._resetter = UnitResetter(learner, self.new_weights, clears_means=clears_means)
        self._schedule = Schedule(self.period)

    def on_task_start(self, learner: Learner) -> None:
        self._resetter.start_task(learner)

    def after_step(self, learner: Learner) -> None:
        due = self._schedule.due(learner.total_steps)
        if due is None:
            return
        chosen = {}
        for units in self._resetter.units:
            magnitudes = units.magnitudes(learner.hidden)
            limit = self.threshold[:, None] * magnitudes.mean(dim=1, keepdim=True)
            dormant = magnitudes <= limit
            chosen[units.layer] = due[:, None] & dormant
        self._resetter.reinitialize(learner, chosen)
