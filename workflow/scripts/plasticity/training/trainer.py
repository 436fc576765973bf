"""Continual training of an ensemble: all runs as one ensemble, task after task.

`train` and `Members.learn` read as they would for a single network; the first dim of every tensor is the run.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from weakref import proxy

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config.models import Setting, Training
from plasticity.data import shift, tasks
from plasticity.models import architecture, losses
from plasticity.rng import generator
from plasticity.training import outcomes
from plasticity.training.cuda_graph import Captured
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, build

WATCHED, STRETCHES = (
    10,
    50,
)  # first steps of a task whose norms are all taken; stretches after them, of at least as many steps
CHUNK = 256  # samples at once where all of a task's data is looked at
AT_ONCE = 64  # steps whose outputs are kept until their errors are taken together


class Members:
    """Runs with one setting and one method, and where they stand.

    Attributes:
        learner: their networks, parameters and optimizer; `interventions`: what is done to them, by method.
        alive: shape ``(run,)``; false once a run's numbers are no longer finite: it is frozen, NaN for good.
        outcomes: by name, shape ``(run, task)`` or ``(run, task, step)``, on the CPU; NaN where there is none (yet).
    """

    def __init__(
        self,
        setting: Setting,
        method: str,
        runs: Sequence[tuple[Mapping[str, float], int]],
        data: xr.Dataset,
        training: Training = Training(),  # noqa: B008 - it is frozen
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Draw the runs anew.

        Args:
            setting: problem, network and optimizer of all runs.
            method: its name.
            runs: each a choice of the method's hyper-parameters, and a seed.
            data: the prepared dataset.
            training: precision, and what is recorded.
            device: where it all lies; by default a GPU, if there is one.
            dtype: of parameters and inputs.
        """
        self.setting, self.data, self.training, self.dtype = setting, data, training, dtype
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        arms, seeds = zip(*runs, strict=True)
        self._loss, self._error = losses.KINDS[shift.of(setting.problem).LOSS]
        self._precision = (
            torch.autocast(self.device.type, torch.bfloat16)
            if training.precision == "bfloat16"
            else nullcontext()
        )
        image = data["image"].shape[1:]
        self.learner = Learner(
            setting, seeds, architecture.fitting(setting, data), image, self.device, dtype
        )
        self.interventions = build(method, arms, self.learner)
        self._watches = any(intervention.WATCHES for intervention in self.interventions.values())
        self.alive = torch.ones(len(runs), dtype=torch.bool, device=self.device)
        self._ends = outcomes.curve_steps(setting.problem, training)
        sizes = {"task": setting.problem.tasks, "step": len(self._ends)}
        self.outcomes = {
            name: torch.full((len(runs), *(sizes[dim] for dim in variable.dims[2:])), torch.nan)
            for name, variable in outcomes.table(setting.problem).items()
        }
        # what a captured step reads and writes stays where it is
        self._inputs, self._labels = self._data()
        self._x, self._y = (
            all_.new_empty(len(runs) * setting.problem.batch, *all_.shape[1:])
            for all_ in (self._inputs, self._labels)
        )
        step = partial(
            Members._step, proxy(self)
        )  # a self of its own would keep the runs after their last use
        # what is drawn or kept of hidden activations is a new tensor at each step, which a capture would miss
        self._take_step = (
            Captured(step) if self.device.type == "cuda" and not self._watches else step
        )

    def carried(self) -> dict[str, Tensor]:
        """What goes on from one task to the next, by name: the tensors themselves, not copies."""
        return {
            "parameters": self.learner.parameters.padded,
            "alive": self.alive,
            **{
                f"optimizer_{name}": tensor
                for name, tensor in self.learner.optimizer.state().items()
            },
            **{
                f"{method}_{name}": tensor
                for method, intervention in self.interventions.items()
                for name, tensor in intervention.state().items()
            },
            **{f"outcome_{name}": tensor for name, tensor in self.outcomes.items()},
        }

    def state(self) -> dict[str, np.ndarray]:
        """Where the runs stand at the end of a task, as plain arrays; on a CPU they share the runs' memory."""
        return {"task": np.array(self.learner.task)} | {
            name: tensor.cpu().numpy() for name, tensor in self.carried().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Stand where runs of the same kind once stood, as `state` gave it."""
        self.learner.task = int(state["task"])
        for name, tensor in self.carried().items():
            tensor.copy_(torch.from_numpy(state[name]))

    def on_task_start(self) -> None:
        """Come to the next task: its data, and what the method changes."""
        inputs, labels = self._data()
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        learner = self.learner
        learner.step = 0
        with torch.no_grad():
            if learner.task and self.setting.problem.head == "fresh":
                learner.reinitialize(learner.of_layers("output"), learner.fresh())
            if learner.task and self.setting.optimizer.at_task_boundary == "reset":
                learner.optimizer.forget()
            for intervention in self.interventions.values():
                intervention.on_task_start(learner)
            learner.parameters.padded.masked_fill_(~self.alive[:, None], torch.nan)

    def learn(self) -> None:
        """Take all steps of the task, and record its outcomes."""
        problem, learner, parameters = (
            self.setting.problem,
            self.learner,
            self.learner.parameters.padded,
        )
        before, moved = torch.empty_like(parameters), parameters.new_zeros(len(parameters))
        order = torch.from_numpy(
            np.stack([tasks.batches(problem, seed, learner.task) for seed in learner.seeds], axis=1)
        ).to(self.device)
        counts = watched(problem.steps, learner.task).tolist()
        errors, losses = [], []
        for first in range(0, problem.steps, AT_ONCE):
            stretch = slice(first, first + AT_ONCE)
            samples = self._places(order[stretch]).flatten(1)
            answers = []
            for batch, count in zip(samples, counts[stretch], strict=True):
                if count:
                    before.copy_(parameters)
                answers.append(self._take_step(batch))
                learner.step += 1
                with torch.no_grad():
                    for intervention in self.interventions.values():
                        intervention.after_step(learner)
                if count:
                    moved += count * torch.linalg.vector_norm(before.sub_(parameters), dim=1)
            outputs, labels = (
                torch.stack(answers),
                self._labels[samples].unflatten(1, (len(parameters), -1)),
            )
            errors.append(self._error(outputs, labels).mean(dim=-1))
            # a row for each step and run: how a number is rounded depends on its place in its row
            losses.append(
                self._loss(outputs.flatten(0, 1), labels.flatten(0, 1))
                .mean(dim=-1)
                .view_as(errors[-1])
            )
        self._record(torch.cat(errors), torch.cat(losses), moved / problem.steps)
        learner.task += 1

    def _step(self, samples: Tensor) -> Tensor:
        """One step of all runs on their own samples, shape ``(run × batch,)``; returns the outputs before it."""
        torch.index_select(self._inputs, 0, samples, out=self._x)
        torch.index_select(self._labels, 0, samples, out=self._y)
        learner, interventions = self.learner, self.interventions.values()
        inputs = self._x.view(len(self.alive), -1, *self._x.shape[1:])
        with self._precision:
            outputs = (
                learner.record_activations(inputs, _gates(interventions, learner))
                if self._watches
                else learner(inputs)
            )
        outputs = outputs.to(self.dtype)
        losses = self._loss(outputs, self._y.view(outputs.shape[:2]))
        penalties = [
            penalty
            for intervention in interventions
            if (penalty := intervention.penalty(learner)) is not None
        ]
        learner.parameters.gradient(losses, *penalties)
        learner.optimizer.step(learner.parameters.padded, learner.parameters.padded_gradient)
        return outputs.detach()

    def _record(self, errors: Tensor, losses: Tensor, update_norm: Tensor) -> None:
        """Outcomes of the task; errors and losses of each step's batch before the step, shape ``(step, run)``."""
        errors, losses = (values.double().T.contiguous() for values in (errors, losses))
        problem = self.setting.problem
        final_error, final_loss = self._evaluate(range(problem.samples))
        self.alive &= final_loss.isfinite()
        for numbers in (self.learner.parameters.padded, *self.learner.optimizer.means.values()):
            self.alive &= numbers.isfinite().all(dim=1)
        found = {
            "final_error": final_error,
            "final_loss": final_loss,
            "online_error": errors.mean(dim=1),
            "update_norm": update_norm,
            "error_curve": torch.stack(
                [part.mean(dim=1) for part in errors.tensor_split(self._ends[:-1], dim=1)], dim=1
            ),
            "loss_curve": torch.stack(
                [part.mean(dim=1) for part in losses.tensor_split(self._ends[:-1], dim=1)], dim=1
            ),
        }
        if problem.test_samples:
            found["test_error"], _ = self._evaluate(
                range(problem.samples, problem.samples + problem.test_samples)
            )
        for name, values in found.items():
            mask = self.alive.view(-1, *[1] * (values.ndim - 1))
            self.outcomes[name][:, self.learner.task] = values.where(mask, torch.nan).float().cpu()
        self.outcomes["status"][:, self.learner.task] = (~self.alive).float().cpu()

    @torch.no_grad()
    def _evaluate(self, which: range) -> tuple[Tensor, Tensor]:
        """Each run's error and loss on some of the task's samples."""
        error, loss = (
            torch.zeros(len(self.alive), dtype=torch.float64, device=self.device) for _ in range(2)
        )
        samples = torch.tensor(which, device=self.device).expand(len(self.learner.seeds), -1)
        # equal parts: with batch norm, a small one at the end would have statistics of its own
        for part in samples.tensor_split(math.ceil(len(which) / CHUNK), dim=1):
            places = self._places(part)
            outputs, labels = self.learner(self._inputs[places]), self._labels[places]
            error += self._error(outputs, labels).sum(dim=1)
            loss += self._loss(outputs, labels).sum(dim=1)
        return error / len(which), loss / len(which)

    def _places(self, samples: Tensor) -> Tensor:
        """Where each run's samples lie in the task's data: ``(…, seed, n)`` → ``(…, run, n)``."""
        seeds = len(self.learner.seeds)
        first = torch.arange(seeds, device=self.device) * (len(self._inputs) // seeds)
        return (samples + first[:, None]).index_select(-2, self.learner.seed_of)

    def _data(self) -> tuple[Tensor, Tensor]:
        """The next task's inputs ``(seed × n, …)`` and labels ``(seed × n,)``."""
        inputs, labels = tasks.stacked(
            self.setting.problem, self.data, self.learner.seeds, self.learner.task
        )
        kind = self.dtype if labels.is_floating_point() else labels.dtype
        return inputs.flatten(0, 1).to(self.device, self.dtype), labels.flatten().to(
            self.device, kind
        )


def _gates(interventions: Iterable[Intervention], learner: Learner) -> dict[str, Tensor]:
    """Those of all methods together: their products."""
    masks: dict[str, Tensor] = {}
    for intervention in interventions:
        for layer, gate in intervention.masks(learner).items():
            masks[layer] = masks[layer] * gate if layer in masks else gate
    return masks


def train(
    runs: Members,
    checkpoint: Callable[[int, Tensor], None] = lambda task, parameters: None,
    keep: Callable[[dict[str, np.ndarray]], None] = lambda state: None,
    progress: Callable[[range], Iterable[int]] = iter,
) -> None:
    """Train runs through all tasks of their problem that they have not learned yet.

    Args:
        runs: newly drawn, or as they stood at the end of a task.
        checkpoint: called as ``checkpoint(task, parameters)`` at each task's start, after what the method changes at the switch, with
            the parameters of shape ``(run, parameter)``.
        keep: called with the runs' state at the end of each task.
        progress: wraps the loop over tasks.
    """
    for task in progress(range(runs.learner.task, runs.setting.problem.tasks)):
        runs.on_task_start()
        checkpoint(task, runs.learner.parameters.flat.detach())
        runs.learn()
        keep(runs.state())


def watched(steps: int, task: int) -> np.ndarray:
    """For how many steps of a task each step's norm stands: 0 where it is not taken, since taking it costs much of a step.

    The first ones (after a change of labels or a reset of the optimizer, the largest) stand for themselves; after them one drawn from each
    stretch stands for the stretch. So the weighted sum is an unbiased estimate of the sum over all steps. The draw is the same
    for all runs.
    """
    counts, length = np.zeros(steps, int), max(WATCHED, steps // STRETCHES)
    counts[:WATCHED] = 1
    draw = generator(0, "watched steps", task)
    for start in range(WATCHED, steps, length):
        stretch = min(length, steps - start)
        counts[start + draw.integers(stretch)] = stretch
    return counts
