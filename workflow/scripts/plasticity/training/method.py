"""Methods, one file each: a class `Method` whose fields are its hyper-parameters. The file's name is the method's.

What a method does not override, it leaves alone. All runs of an ensemble are treated at once: every tensor has the run
as its first dim, and each hyper-parameter is a tensor of shape ``(run,)``, since arms differ in it; a field of type `str` is an
option that all arms share. A config composes methods by ``+``: each acts as it does alone, in the order in which they are named, but
for one that acts `LAST`.

Constants say what can be known before anything runs; a file's class may assign them (literals only, they are read, not imported).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

import torch
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import hyper_parameters, parts
from plasticity.errors import StudyError
from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.learner import Learner


@dataclass
class Intervention:
    """No intervention: the base of all methods.

    Attributes:
        NETWORK: what the method changes of the setting's network: keys of the config's `network`, with their values.
        REFUSES: values of the config's `network` that it cannot work with, by key.
        NEEDS: its options that must be given with some kinds of network, by option.
        CLAIM: what it must have for itself; two methods with the same claim contradict each other, and "everything" any other.
        AT_MOST: the largest values of hyper-parameters that have one; all are 0 or more.
        WHOLE: hyper-parameters that are whole numbers.
        CHOICES: the values of options; each field of type `str` has some.
        WATCHES: whether `gates` or `learner.hidden` are used.
        LAST: whether it acts after those that it is composed with, wherever its name stands: what it keeps up, no other may undo.
    """

    NETWORK: ClassVar[Mapping[str, object]] = {}
    REFUSES: ClassVar[Mapping[str, Sequence[str]]] = {}
    NEEDS: ClassVar[Mapping[str, Sequence[str]]] = {}
    CLAIM: ClassVar[str | None] = None
    AT_MOST: ClassVar[Mapping[str, float]] = {}
    WHOLE: ClassVar[Sequence[str]] = []
    CHOICES: ClassVar[Mapping[str, Sequence[str]]] = {}
    WATCHES: ClassVar[bool] = False
    LAST: ClassVar[bool] = False

    def setup(self, learner: Learner) -> None:
        """Called once, with the initial parameters.

        Raises:
            StudyError: a network that the method cannot work with.
        """

    def state(self) -> dict[str, Tensor]:
        """Tensors by name that outlast a task and that a resumed run must take up again; besides parameters and optimizer."""
        return {}

    def on_task_start(self, learner: Learner) -> None:
        """Called when a task begins, task 0 too, under `torch.no_grad`."""

    def masks(self, learner: Learner) -> dict[str, Tensor]:
        """What hidden activations are multiplied by in this step, by layer, shapes ``(run, n, …)``; never when they are measured."""
        return {}

    def penalty(self, learner: Learner) -> Tensor | QuadraticPenalty | None:
        """What is added to each run's loss, shape ``(run,)``; a `QuadraticPenalty`, where it is one, is cheaper; None for nothing.

        On a GPU it is part of a step that is captured as a CUDA graph, unless a method watches: Python runs it in the first few steps, and
        the same kernels are launched ever after. So what changes from step to step is in tensors, changed in place, not in numbers or new
        tensors of Python's, and nothing waits for the device (`item`, `tolist`, an `if` on a tensor).
        """
        return None

    def after_step(self, learner: Learner) -> None:
        """Called after each step of the optimizer, under `torch.no_grad`."""


def build(
    method: str, arms: Sequence[Mapping[str, float | str]], learner: Learner
) -> dict[str, Intervention]:
    """The methods that a name composes, by their own names and in the order in which they act, for runs with these hyper-parameters.

    Raises:
        StudyError: a network that a method cannot work with, a field that is no hyper-parameter.
    """
    built = {}
    for part in parts(method):
        given = [hyper_parameters(method, part, arm) for arm in arms]
        intervention = registry.build("methods", part, given[0])
        types = get_type_hints(type(intervention))
        for name in (field.name for field in fields(intervention) if types[field.name] is not str):
            if types[name] is not Tensor:
                raise StudyError(
                    f"methods/{part}.py: {name} is neither a Tensor, a number of each arm, nor a str, which all arms share: choose"
                )
            values = [
                own[name] if name in own else getattr(type(intervention), name) for own in given
            ]
            setattr(
                intervention, name, torch.tensor(values, device=learner.device, dtype=learner.dtype)
            )
        intervention.setup(learner)
        built[part] = intervention
    return dict(sorted(built.items(), key=lambda item: item[1].LAST))


def default(value: float) -> Tensor:
    """The value of a hyper-parameter that a config does not give."""
    return torch.tensor(value, dtype=torch.float64)
