"""Continual training of an ensemble: all runs together, one task after the other.

The code reads as it would for a single network; the first dim of every tensor is the run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.config.models import Setting, Training
from plasticity.data import shift
from plasticity.models import architecture, losses
from plasticity.models.ensemble import Penalty, default_device
from plasticity.training.batches import Batches
from plasticity.training.cuda_graph import Captured
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, build
from plasticity.training.recorder import Recorder

BLOCK = 64  # steps whose outputs are kept until their errors are computed together


class Trainer:
    """Trains runs of one setting and one method through tasks.

    Attributes:
        setting: problem, network and optimizer of all runs.
        learner: networks, parameters and optimizer.
        interventions: the methods, by name, in the order in which they act.
        batches: data of the current task.
        recorder: outcomes, and which runs have diverged. Those stay NaN.
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
        """Draw the initial parameters of all runs.

        Args:
            setting: problem, network and optimizer of all runs.
            method: name of the method, or several joined by ``+``.
            runs: hyperparameters of the method, and the seed, of each run.
            data: the prepared dataset.
            training: precision, and what is recorded.
            device: by default a GPU if there is one.
            dtype: of parameters and inputs.

        Raises:
            StudyError: the method does not work with the network.
        """
        device = device or default_device()
        arms, seeds = zip(*runs, strict=True)
        network = architecture.build_for(setting, data)
        self.setting = setting
        self.learner = Learner(setting, seeds, network, data["image"].shape[1:], device, dtype)
        self.interventions = build(method, arms, self.learner)
        self.batches = Batches(data, self.learner)
        self.recorder = Recorder(self.learner, self.batches, training)
        self._step = Step(self.learner, self.interventions, self.batches, training)
        waits = any(method.WAITS_FOR_DEVICE for method in self.interventions.values())
        capture = device.type == "cuda" and not waits
        self._take_step = Captured(self._step) if capture else self._step

    def boundary_tensors(self) -> dict[str, Tensor]:
        """Return what the next task depends on, by name, not copies; the first dim is the run."""
        tensors = {"parameters": self.learner.parameters.padded, "alive": self.recorder.alive}
        for name, tensor in self.learner.optimizer.state().items():
            tensors[f"optimizer_{name}"] = tensor
        for method, intervention in self.interventions.items():
            for name, tensor in intervention.state().items():
                tensors[f"{method}_{name}"] = tensor
        return tensors

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that last from task to task, by name, not copies."""
        outcomes = self.recorder.outcomes.items()
        return self.boundary_tensors() | {f"outcome_{name}": tensor for name, tensor in outcomes}

    def state(self) -> dict[str, np.ndarray]:
        """Return the state at the end of a task. On a CPU the arrays share the trainer's memory."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_tensors().items()}
        return {"task": np.array(self.learner.task)} | arrays

    def boundary_state(self) -> dict[str, np.ndarray]:
        """Return the part of `state` that the next task depends on, shapes ``(run, …)``."""
        return {name: tensor.cpu().numpy() for name, tensor in self.boundary_tensors().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state` of a trainer with the same arguments."""
        self.learner.task = int(state["task"])
        for name, tensor in self.state_tensors().items():
            tensor.copy_(torch.from_numpy(state[name]))

    def restore_boundary(self, task: int, state: Mapping[str, np.ndarray]) -> None:
        """Continue at the start of a task from a `boundary_state`; outcomes stay missing.

        Args:
            task: index of the next task.
            state: of the same runs, at the end of the previous task.
        """
        self.learner.task = task
        for name, tensor in self.boundary_tensors().items():
            tensor.copy_(torch.from_numpy(state[name]))

    @torch.no_grad()
    def on_task_start(self) -> None:
        """Load the data of the current task, and change the learner as setting and method say."""
        self.batches.load()
        learner = self.learner
        learner.step = 0
        is_boundary = learner.task > 0
        if is_boundary and self.setting.problem.head == "fresh":
            learner.reinitialize(learner.layer_mask("output"), learner.draw_parameters())
        if is_boundary and self.setting.optimizer.at_task_boundary == "reset":
            learner.optimizer.reset()
        for intervention in self.interventions.values():
            intervention.on_task_start(learner)
        learner.parameters.padded.masked_fill_(~self.recorder.alive[:, None], torch.nan)

    def learn(self) -> None:
        """Take all steps of the current task, and record its outcomes."""
        self._take_steps(self.batches.order(), self.recorder.start_task())
        self.recorder.finish_task()
        self.learner.task += 1

    def _take_steps(self, order: Tensor, weights: Sequence[int]) -> None:
        """Take all steps of a task. On a GPU nothing here waits for the device.

        Args:
            order: the samples of each step, shape ``(step, seed, batch)``.
            weights: of each step in the update norm.
        """
        for first in range(0, len(order), BLOCK):
            block = slice(first, first + BLOCK)
            rows = self.batches.rows(order[block]).flatten(1)
            outputs = [
                self._learn_batch(batch, weight)
                for batch, weight in zip(rows, weights[block], strict=True)
            ]
            self.recorder.record_steps(torch.stack(outputs), rows)

    def _learn_batch(self, rows: Tensor, weight: int) -> Tensor:
        """Take one step, and let the methods act after it; return the outputs before the step.

        Args:
            rows: the samples in the task's data, shape ``(run × batch,)``.
            weight: of the step in the update norm.
        """
        if weight:
            self.recorder.before_step()
        if self._step.records_activations:
            self._step.draw_masks()
        outputs = self._take_step(rows)
        self.learner.step += 1
        with torch.no_grad():
            for intervention in self.interventions.values():
                intervention.after_step(self.learner)
        if weight:
            self.recorder.after_step(weight)
        return outputs


class Step:
    """One step of the optimizer for all runs, which a CUDA graph can capture.

    A captured graph keeps its function alive. If that were a method of the trainer, the two would
    refer to each other, and the memory of a trainer would not be free right after its last use. So
    this class refers only to what a step needs, and not to the trainer.
    """

    def __init__(
        self,
        learner: Learner,
        interventions: Mapping[str, Intervention],
        batches: Batches,
        training: Training,
    ) -> None:
        """Refer to the parts of a trainer that a step reads and changes."""
        self._learner = learner
        self._interventions = interventions
        self._batches = batches
        self._loss = losses.LOSSES[shift.build_shift(learner.setting.problem).LOSS].loss
        self._precision = (
            torch.autocast(learner.device.type, torch.bfloat16)
            if training.precision == "bfloat16"
            else nullcontext()
        )
        self.records_activations = any(method.USES_ACTIVATIONS for method in interventions.values())
        self._masks: dict[str, Tensor] = {}

    @torch.no_grad()
    def draw_masks(self) -> None:
        """Replace the factors of hidden activations by those of the next step.

        They keep their addresses, because a captured graph reads them. They are drawn outside the
        graph, because a graph's random numbers would not restart at each task.
        """
        masks = combine_masks(self._interventions.values(), self._learner)
        for layer, mask in masks.items():
            if layer in self._masks:
                self._masks[layer].copy_(mask)
            else:
                self._masks[layer] = mask.clone()  # the method may keep its tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Take a step on a batch of each run.

        Args:
            rows: the samples in the task's data, shape ``(run × batch,)``.

        Returns:
            Outputs before the step, shape ``(run, batch, …)``.
        """
        learner = self._learner
        inputs, labels = self._batches.select(rows)
        outputs: Tensor

        def objective() -> tuple[Tensor, list[Penalty]]:
            nonlocal outputs
            outputs = self._forward(inputs)
            return self._loss(outputs, labels), self._penalties()

        learner.parameters.gradient(objective)
        learner.optimizer.step(learner.parameters.padded, learner.parameters.padded_gradient)
        return outputs.detach()

    def _forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs in the setting's precision, returned in the learner's dtype."""
        learner = self._learner
        with self._precision:
            if self.records_activations:
                outputs = learner.record_activations(inputs, self._masks)
            else:
                outputs = learner(inputs)
        return outputs.to(learner.dtype)

    def _penalties(self) -> list[Penalty]:
        """Collect the penalties of all methods."""
        penalties = []
        for intervention in self._interventions.values():
            penalty = intervention.penalty(self._learner)
            if penalty is not None:
                penalties.append(penalty)
        return penalties


def combine_masks(interventions: Iterable[Intervention], learner: Learner) -> dict[str, Tensor]:
    """Multiply the masks of all methods, by layer."""
    masks: dict[str, Tensor] = {}
    for intervention in interventions:
        for layer, mask in intervention.masks(learner).items():
            masks[layer] = masks[layer] * mask if layer in masks else mask
    return masks


def train(
    trainer: Trainer,
    checkpoint: Callable[[int, Tensor], None] = lambda task, parameters: None,
    save: Callable[[dict[str, np.ndarray]], None] = lambda state: None,
    progress: Callable[[range], Iterable[int]] = iter,
) -> None:
    """Train through all tasks of the problem that are not trained yet.

    Args:
        trainer: new, or restored at the end of a task.
        checkpoint: called as ``checkpoint(task, parameters)`` at the start of each task, after the
            changes at the task boundary, with parameters of shape ``(run, parameter)``.
        save: called with the trainer's state at the end of each task.
        progress: wraps the loop over tasks.
    """
    for task in progress(range(trainer.learner.task, trainer.setting.problem.tasks)):
        trainer.on_task_start()
        checkpoint(task, trainer.learner.parameters.flat.detach())
        trainer.learn()
        save(trainer.state())
