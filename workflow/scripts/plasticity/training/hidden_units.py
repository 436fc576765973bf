"""Hidden units that can be followed: what makes each, what takes it, and how one is given a new start."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from plasticity.errors import StudyError
from plasticity.models import activations, architecture, normalization
from plasticity.training.learner import Learner

MAKERS = (nn.Linear, nn.Conv2d)
PASSED = (
    nn.Flatten,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)  # what units go through one by one


class Units(NamedTuple):
    """Those of one layer.

    Attributes:
        layer: a linear layer, or a convolution, whose channels are units.
        width: how many.
        expansion: how many numbers the activation makes of one.
        made_by: parameters with a row for each unit: the layer's, and those of a norm between it and the activation.
        taken_by: weights of the next layers.
    """

    layer: str
    width: int
    expansion: int
    made_by: tuple[str, ...]
    taken_by: tuple[str, ...]

    def magnitudes(self, hidden: Mapping[str, Tensor]) -> Tensor:
        """Mean magnitude of each unit's activation over a batch, shape ``(run, unit)``."""
        of_outputs = hidden[self.layer].detach().abs().mean(dim=1)
        magnitudes: Tensor = of_outputs.unflatten(1, (self.expansion, self.width)).mean(dim=1)
        return magnitudes

    def columns(self, weight: Tensor) -> Tensor:
        """A view of a weight that takes the units, shape ``(run, output, …)`` → ``(run, output, expansion, unit, place)``."""
        columns: Tensor = weight.flatten(2).unflatten(2, (self.expansion, self.width, -1))
        return columns


def follow(network: nn.Module) -> list[Units]:
    """The hidden units that one layer makes and only layers take, in order; not those to which a shortcut adds.

    Raises:
        StudyError: there are none, or the network's `forward` cannot be traced.
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:
        raise StudyError(
            f"the hidden units of this network.kind cannot be followed ({error}): choose another kind or method"
        ) from error
    module_of = {
        node: network.get_submodule(str(node.target))
        for node in graph.nodes
        if node.op == "call_module"
    }
    calls: list[nn.Module | None] = [*module_of.values()]
    found = []
    for node in (
        node for node, module in module_of.items() if isinstance(module, activations.MODULES)
    ):
        made_by, taken_by = [*_makers(node, module_of)], [*_takers(node, module_of)]
        chain = [module_of.get(one) for one in [*made_by, *taken_by]]
        once, layers = all(calls.count(one) == 1 for one in chain), chain[len(made_by) - 1 :]
        if made_by and taken_by and once and all(isinstance(layer, MAKERS) for layer in layers):
            maker = made_by[-1]
            expansion = next(
                kind.expansion
                for kind in activations.KINDS.values()
                if type(module_of[node]) is kind.module
            )
            rows = [
                f"{one.target}.{name}"
                for one in reversed(made_by)
                for name, _ in module_of[one].named_parameters()
            ]
            columns = [f"{one.target}.weight" for one in taken_by]
            width = len(network.get_parameter(f"{maker.target}.weight"))
            found.append(Units(str(maker.target), width, expansion, tuple(rows), tuple(columns)))
    if not found:
        raise StudyError(
            "no hidden units of this network.kind come from one layer and go to layers alone: choose another kind or method"
        )
    return found


class Renewal:
    """New starts for units: incoming weights drawn anew from their initial law, outgoing ones zero, forgotten by the optimizer.

    A weight between two that start anew at once is drawn.
    """

    def __init__(self, learner: Learner) -> None:
        """Follow the units of the learner's network.

        Raises:
            StudyError: a network in which there are none.
        """
        self.units = follow(learner.network)
        self._draws: dict[tuple[int, str], Iterator[list[Tensor]]] = {}
        self._task = -1

    def reinitialize(self, learner: Learner, chosen: Mapping[str, Tensor]) -> None:
        """Give some units a new start.

        Args:
            learner: to be changed.
            chosen: by layer, booleans of shape ``(run, unit)``.
        """
        if self._task != learner.task:
            self._draws, self._task = {}, learner.task
        flat = learner.parameters.flat.detach()
        where, values = torch.zeros_like(flat, dtype=torch.bool), torch.zeros_like(flat)
        changed, new = learner.parameters.split(where), learner.parameters.split(values)
        for units in self.units:
            for run, unit in chosen[units.layer].nonzero().tolist():
                key = (run, units.layer)
                rows = self._draws.setdefault(key, self._rows(learner, run, units))
                for name, row in zip(units.made_by, next(rows), strict=True):
                    new[name][run, unit], changed[name][run, unit] = row, True
                for name in units.taken_by:
                    units.columns(changed[name])[run, :, :, unit] = True
        if where.any():
            learner.reinitialize(where, values)

    def _rows(self, learner: Learner, run: int, units: Units) -> Iterator[list[Tensor]]:
        """What makes one unit after the other: rows of whole layers, newly drawn in this task; the same for every arm of a seed."""
        seed = learner.seeds[int(learner.seed_of[run])]
        for again in itertools.count():
            drawn = architecture.initial(
                learner.network,
                learner.setting.network,
                seed,
                learner.task,
                f"units of {units.layer}, draw {again}",
            )
            yield from (
                [drawn[name][unit] for name in units.made_by] for unit in range(units.width)
            )


class _Tracer(fx.Tracer):
    """Looks into a module only as far as there are activations in it, and into what is a row of modules; an empty one does nothing."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        looked_into = isinstance(m, nn.Sequential) or any(
            isinstance(part, activations.MODULES) for part in m.modules()
        )
        return isinstance(m, activations.MODULES) or not looked_into


def _makers(node: fx.Node, module_of: Mapping[fx.Node, nn.Module]) -> Iterator[fx.Node]:
    """From an activation back to what makes its units: norms, if any, and a layer; it comes last."""
    before = node.args[0]
    while isinstance(before, fx.Node) and len(before.users) == 1 and before in module_of:
        module = module_of[before]
        if isinstance(module, (*normalization.LAYERS, *MAKERS)):
            yield before
        if not isinstance(module, normalization.LAYERS):
            return
        before = before.args[0]


def _takers(node: fx.Node, module_of: Mapping[fx.Node, nn.Module]) -> Iterator[fx.Node]:
    """From an activation on to all that takes its units."""
    for after in node.users:
        if after.target in ("flatten", torch.flatten) or isinstance(module_of.get(after), PASSED):
            yield from _takers(after, module_of)
        else:
            yield after
