"""The data of the current task, and the samples that each step uses."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from plasticity.data import tasks
from plasticity.training.learner import Learner


class Batches:
    """The data of the current task for all seeds, and the batch of the current step for all runs.

    The tensors stay at the same addresses, because a captured CUDA graph reads and writes them.

    Attributes:
        inputs: shape ``(seed × n, channel, row, column)``.
        labels: shape ``(seed × n,)``.
        batch_inputs: inputs of the current step, shape ``(run × batch, channel, row, column)``.
        batch_labels: labels of the current step, shape ``(run × batch,)``.
    """

    def __init__(self, data: xr.Dataset, learner: Learner) -> None:
        """Load the learner's current task.

        Args:
            data: the prepared dataset.
            learner: its setting, seeds, device and dtype are used.
        """
        self._data = data
        self._learner = learner
        self._runs = len(learner.seed_of)
        self.inputs, self.labels = self._read()
        samples = self._runs * learner.setting.problem.batch
        self.batch_inputs = self.inputs.new_empty(samples, *self.inputs.shape[1:])
        self.batch_labels = self.labels.new_empty(samples)

    def load(self) -> None:
        """Replace the data by that of the learner's current task."""
        inputs, labels = self._read()
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)

    def order(self) -> Tensor:
        """Return the samples of each step of the current task, shape ``(step, seed, batch)``."""
        learner = self._learner
        orders = [
            tasks.draw_batches(learner.setting.problem, seed, learner.task)
            for seed in learner.seeds
        ]
        return torch.from_numpy(np.stack(orders, axis=1)).to(learner.device)

    def rows(self, samples: Tensor) -> Tensor:
        """Return the rows of samples in `inputs`, ``(…, seed, n)`` → ``(…, run, n)``."""
        learner = self._learner
        seeds = len(learner.seeds)
        per_seed = len(self.inputs) // seeds
        first = torch.arange(seeds, device=learner.device) * per_seed
        return (samples + first[:, None]).index_select(-2, learner.seed_of)

    def select(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Make some rows the batch of the current step.

        Args:
            rows: shape ``(run × batch,)``.

        Returns:
            Inputs ``(run, batch, channel, row, column)`` and labels ``(run, batch)``.
        """
        torch.index_select(self.inputs, 0, rows, out=self.batch_inputs)
        torch.index_select(self.labels, 0, rows, out=self.batch_labels)
        inputs = self.batch_inputs.view(self._runs, -1, *self.batch_inputs.shape[1:])
        return inputs, self.batch_labels.view(self._runs, -1)

    def _read(self) -> tuple[Tensor, Tensor]:
        """Read the current task's inputs ``(seed × n, …)`` and labels ``(seed × n,)``."""
        learner = self._learner
        inputs, labels = tasks.build_task_of_seeds(
            learner.setting.problem, self._data, learner.seeds, learner.task
        )
        label_dtype = learner.dtype if labels.is_floating_point() else labels.dtype
        inputs = inputs.flatten(0, 1).to(learner.device, learner.dtype)
        return inputs, labels.flatten().to(learner.device, label_dtype)
