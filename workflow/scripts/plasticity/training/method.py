"""The base class of methods: what a method can do during training.

A method is one file in `methods/`. The file's name is its name in a config. The file has one class
`Method`, whose fields are the hyperparameters. For example, `methods/l2.py` without its imports::

    @dataclass
    class Method(Intervention):
        strength: Tensor

        def penalty(self, learner: Learner) -> QuadraticPenalty:
            return QuadraticPenalty(self.strength)

How to write one:

1. Name the hyperparameters as fields. A field of type `Tensor` has shape ``(run,)``, because arms
   differ in it. A field of type `str` is an option that all arms share.
2. Override the hooks that the method needs. All hooks are optional, and all runs are treated at
   once: the first dim of every tensor is the run.
3. Set the constants that tell the config check what the method needs, before anything runs. They
   must be literals, because they are read without importing the file.
4. Add the method to the tables in ``tests/unit/ensembles.py``.

The hooks, in the order in which they are called:

=================  ==========================================================================
`setup`            once, with the initial parameters
`on_task_start`    at the start of each task, including task 0
`masks`            in each step: factors of hidden activations
`penalty`          in each step: a term of the loss
`after_step`       after each step of the optimizer
`state`            at the end of each task: tensors that a restarted job must restore
=================  ==========================================================================

A config composes methods by ``+``. Their hooks are called in the order of their names, but a method
with `LAST` comes after the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

import torch
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import BASELINE, hyperparameters, is_baseline, parts
from plasticity.errors import StudyError
from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.learner import Learner


@dataclass
class Intervention:
    """The base of all methods. It does nothing.

    Attributes:
        NETWORK: values that replace those of the setting, by key of the config's `network`.
        REFUSES: values that the method does not work with, by key of the config's `network`.
        NEEDS: kinds of network for which an option must be given, by option.
        CLAIM: what only one method of a composition can have. Methods with the same claim cannot be
            composed, and "everything" cannot be composed with any other method.
        AT_MOST: upper bounds of hyperparameters. The lower bound of all is 0.
        WHOLE: hyperparameters that are integers.
        CHOICES: allowed values of each option.
        USES_ACTIVATIONS: whether the method uses `masks` or `learner.hidden`.
        WAITS_FOR_DEVICE: whether `penalty` waits for a GPU. No CUDA graph can then capture a step.
        LAST: whether its hooks are called after those of other methods, which must not undo it.
    """

    NETWORK: ClassVar[Mapping[str, object]] = {}
    REFUSES: ClassVar[Mapping[str, Sequence[str]]] = {}
    NEEDS: ClassVar[Mapping[str, Sequence[str]]] = {}
    CLAIM: ClassVar[str | None] = None
    AT_MOST: ClassVar[Mapping[str, float]] = {}
    WHOLE: ClassVar[Sequence[str]] = []
    CHOICES: ClassVar[Mapping[str, Sequence[str]]] = {}
    USES_ACTIVATIONS: ClassVar[bool] = False
    WAITS_FOR_DEVICE: ClassVar[bool] = False
    LAST: ClassVar[bool] = False

    def setup(self, learner: Learner) -> None:
        """Prepare for training; `learner.parameters` are the initial ones.

        Raises:
            StudyError: the method does not work with the network.
        """

    def on_task_start(self, learner: Learner) -> None:
        """Change the learner at the start of `learner.task`, under `torch.no_grad`."""

    def masks(self, learner: Learner) -> dict[str, Tensor]:
        """Return the factors of hidden activations in this step.

        They are used in training steps only, never in an evaluation. On a GPU they are computed
        outside the CUDA graph of the step.

        Returns:
            By layer, shapes ``(run, n, …)`` as `learner.hidden_shapes` gives them for one sample.
        """
        return {}

    def penalty(self, learner: Learner) -> Tensor | QuadraticPenalty | None:
        """Return what is added to each run's loss.

        On a GPU the penalty is part of a CUDA graph, unless a method sets `WAITS_FOR_DEVICE`:
        Python runs it in the first few steps only, and then the same kernels are replayed. So
        whatever changes from step to step must be a tensor that is changed in place. The penalty
        must not wait for the device: no `item`, no `tolist`, no `if` on a tensor.

        Returns:
            Shape ``(run,)``; or a `QuadraticPenalty`, which needs no autograd; or None.
        """
        return None

    def after_step(self, learner: Learner) -> None:
        """Change the learner after a step of the optimizer, under `torch.no_grad`.

        On a GPU it must not wait for the device either. `Schedule` knows on the host which runs act
        after a step.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the tensors, by name, that a restarted job must restore.

        Parameters and optimizer are restored anyway. Tensors are not copied.
        """
        return {}


class Schedule:
    """Tells which runs act after which steps.

    The periods are known on the host, so nobody waits for a GPU to learn that no run acts.
    """

    def __init__(self, period: Tensor) -> None:
        """Read the periods of all runs.

        Args:
            period: in steps, shape ``(run,)``; 0 means never.
        """
        self._period = period
        self._periods = {int(steps) for steps in period.tolist() if steps > 0}

    def due(self, steps: int) -> Tensor | None:
        """Return which runs act after some number of steps, shape ``(run,)``; None if none does."""
        if not any(steps % period == 0 for period in self._periods):
            return None
        return (self._period > 0) & (steps % self._period.clamp(min=1) == 0)


def build(
    method: str, arms: Sequence[Mapping[str, float | str]], learner: Learner
) -> dict[str, Intervention]:
    """Build the methods of a composition.

    Args:
        method: name of a method, or several joined by ``+``.
        arms: hyperparameters of each run.
        learner: the runs. Of a baseline such as ``fresh+layer_norm``, the other parts only change
            the network, which the learner already has.

    Returns:
        Methods by name, in the order in which they act.

    Raises:
        StudyError: a method does not work with the network, or a field has another type.
    """
    methods = {}
    for part in [BASELINE] if is_baseline(method) else parts(method):
        values = [hyperparameters(method, part, arm) for arm in arms]
        intervention: Intervention = registry.build("methods", part, values[0])
        _set_hyperparameters(intervention, part, values, learner)
        intervention.setup(learner)
        methods[part] = intervention
    return dict(sorted(methods.items(), key=lambda item: item[1].LAST))


def _set_hyperparameters(
    intervention: Intervention,
    name: str,
    values: Sequence[Mapping[str, float | str]],
    learner: Learner,
) -> None:
    """Set each field to a tensor of shape ``(run,)``, except for options."""
    method = type(intervention)
    types = get_type_hints(method)
    for field in (field.name for field in fields(intervention)):
        if types[field] is str:
            continue
        if types[field] is not Tensor:
            raise StudyError(
                f"methods/{name}.py: the type of the field {field} is neither Tensor nor str; "
                "annotate it as Tensor if arms may differ in it, or as str if it is an option"
            )
        of_runs = [own[field] if field in own else getattr(method, field) for own in values]
        tensor = torch.tensor(of_runs, device=learner.device, dtype=learner.dtype)
        setattr(intervention, field, tensor)


def default(value: float) -> Tensor:
    """Return the default of a hyperparameter."""
    return torch.tensor(value, dtype=torch.float64)
