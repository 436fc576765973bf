"""Recording of outcomes while an ensemble trains."""

import math

import numpy as np
import torch
from torch import Tensor

from plasticity.config.models import Training
from plasticity.data import shift
from plasticity.models import losses
from plasticity.rng import generator
from plasticity.training import outcomes
from plasticity.training.batches import Batches
from plasticity.training.learner import Learner

EVALUATION_BATCH = 256  # most samples in one forward pass over all of a task's data
FIRST_STEPS = 10  # steps at the start of a task whose updates are all measured
STRETCHES = 50  # stretches that the other steps are divided into, if each has FIRST_STEPS steps


class Recorder:
    """The outcomes of all runs and tasks.

    Attributes:
        outcomes: by name, shape ``(run, task)`` or ``(run, task, step)``, on the CPU. NaN for tasks
            that were not trained yet, and for diverged runs.
        alive: shape ``(run,)``; false for a run whose numbers were once not finite.
    """

    def __init__(self, learner: Learner, batches: Batches, training: Training) -> None:
        """Allocate the outcomes.

        Args:
            learner: its runs are recorded.
            batches: data of the current task.
            training: how many points a learning curve has.
        """
        problem = learner.setting.problem
        runs = len(learner.seed_of)
        self._learner = learner
        self._batches = batches
        self._loss, self._error = losses.LOSSES[shift.build_shift(problem).LOSS]
        self._curve_steps = outcomes.curve_steps(problem, training)
        sizes = {"task": problem.tasks, "step": len(self._curve_steps)}
        self.outcomes = {}
        for name, variable in outcomes.table(problem).items():
            shape = [sizes[dim] for dim in variable.dims[2:]]
            self.outcomes[name] = torch.full((runs, *shape), torch.nan)
        self.alive = torch.ones(runs, dtype=torch.bool, device=learner.device)
        self._parameters_before = torch.empty_like(learner.parameters.padded)
        self._update_norms = learner.parameters.padded.new_zeros(runs)
        self._errors: list[Tensor] = []
        self._losses: list[Tensor] = []

    def start_task(self) -> list[int]:
        """Start recording the current task.

        Returns:
            The weight of each step in the update norm. A step of weight 0 needs no `before_step`
            and no `after_step`.
        """
        self._update_norms.zero_()
        self._errors = []
        self._losses = []
        weights: list[int] = step_weights(
            self._learner.setting.problem.steps, self._learner.task
        ).tolist()
        return weights

    def before_step(self) -> None:
        """Remember the parameters."""
        self._parameters_before.copy_(self._learner.parameters.padded)

    def after_step(self, weight: int) -> None:
        """Add the norm of the change since `before_step` to the update norm."""
        update = self._parameters_before.sub_(self._learner.parameters.padded)
        self._update_norms += weight * torch.linalg.vector_norm(update, dim=1)

    def record_steps(self, outputs: Tensor, rows: Tensor) -> None:
        """Add the errors and losses of some steps, on each batch before the step on it.

        Args:
            outputs: shape ``(step, run, batch, …)``.
            rows: the samples in the task's data, shape ``(step, run × batch)``.
        """
        labels = self._batches.labels[rows].unflatten(1, outputs.shape[1:3])
        errors = self._error(outputs, labels).mean(dim=-1)
        # steps and runs are one dim here: the rounding of a number depends on its place in a row
        losses = self._loss(outputs.flatten(0, 1), labels.flatten(0, 1)).mean(dim=-1)
        self._errors.append(errors)
        self._losses.append(losses.view_as(errors))

    def finish_task(self) -> None:
        """Store the outcomes of the current task, and find diverged runs."""
        problem = self._learner.setting.problem
        errors = torch.cat(self._errors).double().T.contiguous()
        losses = torch.cat(self._losses).double().T.contiguous()
        final_error, final_loss = self._evaluate(range(problem.samples))
        self._find_diverged(final_loss)
        results = {
            "final_error": final_error,
            "final_loss": final_loss,
            "online_error": errors.mean(dim=1),
            "update_norm": self._update_norms / problem.steps,
            "error_curve": self._curve(errors),
            "loss_curve": self._curve(losses),
        }
        if problem.test_samples:
            end = problem.samples + problem.test_samples
            results["test_error"], _ = self._evaluate(range(problem.samples, end))
        task = self._learner.task
        for name, values in results.items():
            alive = self.alive.view(-1, *[1] * (values.ndim - 1))
            self.outcomes[name][:, task] = values.where(alive, torch.nan).float().cpu()
        self.outcomes["status"][:, task] = (~self.alive).float().cpu()

    def _curve(self, values: Tensor) -> Tensor:
        """Average over the stretches of a learning curve, ``(run, step)`` → ``(run, point)``."""
        stretches = values.tensor_split(self._curve_steps[:-1], dim=1)
        return torch.stack([stretch.mean(dim=1) for stretch in stretches], dim=1)

    def _find_diverged(self, final_loss: Tensor) -> None:
        """Mark the runs whose loss, parameters or optimizer state are not finite."""
        self.alive &= final_loss.isfinite()
        for values in (self._learner.parameters.padded, *self._learner.optimizer.means.values()):
            self.alive &= values.isfinite().all(dim=1)

    @torch.no_grad()
    def _evaluate(self, samples: range) -> tuple[Tensor, Tensor]:
        """Compute the mean error and loss of each run on some of the task's samples."""
        device = self._learner.device
        error = torch.zeros(len(self.alive), dtype=torch.float64, device=device)
        loss = torch.zeros_like(error)
        numbers = torch.tensor(samples, device=device).expand(len(self._learner.seeds), -1)
        # parts of equal size: batch norm of a small last part would have other statistics
        for part in numbers.tensor_split(math.ceil(len(samples) / EVALUATION_BATCH), dim=1):
            rows = self._batches.rows(part)
            outputs = self._learner(self._batches.inputs[rows])
            labels = self._batches.labels[rows]
            error += self._error(outputs, labels).sum(dim=1)
            loss += self._loss(outputs, labels).sum(dim=1)
        return error / len(samples), loss / len(samples)


def step_weights(steps: int, task: int) -> np.ndarray:
    """Choose the steps of a task whose update norms are measured.

    Measuring all of them would cost much of a step. The first steps, where updates are largest
    after a change of labels or a reset of the optimizer, are all measured. The others are divided
    into stretches, and one random step of each stretch stands for all of its steps. So the weighted
    sum is an unbiased estimate of the sum over all steps. The choice is the same for all runs.

    Args:
        steps: number of steps of the task.
        task: number of the task.

    Returns:
        The weight of each step, shape ``(step,)``; 0 if its update is not measured.
    """
    weights = np.zeros(steps, int)
    weights[:FIRST_STEPS] = 1
    draw = generator(0, "watched steps", task)
    length = max(FIRST_STEPS, steps // STRETCHES)
    for start in range(FIRST_STEPS, steps, length):
        stretch = min(length, steps - start)
        weights[start + draw.integers(stretch)] = stretch
    return weights
