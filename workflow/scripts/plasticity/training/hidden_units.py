"""Hidden units that can be reset: their incoming weights, outgoing weights and new values.

A unit can be reset if one layer computes it and only layers use it. Methods use `UnitResetter`;
treatments use `find_hidden_units` only.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from plasticity.errors import StudyError
from plasticity.log import warn_once
from plasticity.models import activations, architecture, normalization
from plasticity.training.learner import Learner

LAYERS = (nn.Linear, nn.Conv2d)
# these handle each unit by itself
PASS_THROUGH = (nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
# new rows that are drawn for a task in advance, as a multiple of a layer's units
DRAWS = 4


class Units(NamedTuple):
    """The hidden units of one layer.

    Attributes:
        layer: name of a linear layer, or of a convolution, whose channels are units.
        width: number of units.
        expansion: how many numbers the activation makes of one unit.
        incoming: parameters with a row per unit: those of the layer, then those of norms between it
            and the activation.
        outgoing: weights of the next layers, whose columns belong to the units.
    """

    layer: str
    width: int
    expansion: int
    incoming: tuple[str, ...]
    outgoing: tuple[str, ...]

    def magnitudes(self, hidden: Mapping[str, Tensor]) -> Tensor:
        """Average the magnitude of each unit's activation over a batch, shape ``(run, unit)``.

        Args:
            hidden: activations by layer, shapes ``(run, row, expansion × unit)``.
        """
        means = hidden[self.layer].detach().abs().mean(dim=1)
        magnitudes: Tensor = means.unflatten(1, (self.expansion, self.width)).mean(dim=1)
        return magnitudes

    def columns(self, weight: Tensor) -> Tensor:
        """Return a view of an outgoing weight that has a dim of units.

        Args:
            weight: shape ``(run, output, …)``.

        Returns:
            Shape ``(run, output, expansion, unit, place)``.
        """
        columns: Tensor = weight.flatten(2).unflatten(2, (self.expansion, self.width, -1))
        return columns


def find_hidden_units(network: nn.Module) -> list[Units]:
    """Find the hidden units that one layer computes and only layers use, in the order of layers.

    Units to which a shortcut adds something are not among them.

    Raises:
        StudyError: there are none, or the network's `forward` cannot be traced.
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:
        raise StudyError(
            f"the hidden units of this network.kind cannot be found, because its forward cannot be "
            f"traced ({error}): choose another kind, method or treatment"
        ) from error
    module_of = {
        node: network.get_submodule(str(node.target))
        for node in graph.nodes
        if node.op == "call_module"
    }
    units = []
    for node, module in module_of.items():
        if isinstance(module, activations.ACTIVATION_CLASSES):
            units += _units_of(node, module_of)
    if not units:
        raise StudyError(
            "no hidden units of this network.kind come from one layer and go to layers alone: "
            "choose another kind, method or treatment"
        )
    return units


def _units_of(node: fx.Node, module_of: Mapping[fx.Node, nn.Module]) -> list[Units]:
    """Return the units of the activation that a node calls: one item, or none if not supported."""
    before = list(_nodes_before(node, module_of))
    after = list(_nodes_after(node, module_of))
    if not before or not after:
        return []
    calls: list[nn.Module | None] = [*module_of.values()]
    if any(calls.count(module_of.get(neighbour)) != 1 for neighbour in [*before, *after]):
        return []
    layer = before[-1]
    if not all(isinstance(module_of.get(neighbour), LAYERS) for neighbour in [layer, *after]):
        return []
    incoming = [
        f"{neighbour.target}.{name}"
        for neighbour in reversed(before)
        for name, _ in module_of[neighbour].named_parameters()
    ]
    activation = type(module_of[node])
    expansion = next(
        kind.expansion for kind in activations.ACTIVATIONS.values() if kind.module is activation
    )
    width = len(module_of[layer].get_parameter("weight"))
    outgoing = [f"{neighbour.target}.weight" for neighbour in after]
    return [Units(str(layer.target), width, expansion, tuple(incoming), tuple(outgoing))]


class UnitResetter:
    """Resets units: incoming weights get new values, outgoing weights become zero.

    A weight between two units that are reset together gets a new value. The optimizer's means of
    all these weights are cleared. Where incoming weights come from depends on `new_weights`:

    - drawn: a new draw from the distribution that the setting's network starts with;
    - he_uniform: a new draw from He's uniform distribution, with biases of 0;
    - stored: the unit's own initial values.

    Attributes:
        units: the units of each layer.
    """

    def __init__(
        self, learner: Learner, new_weights: str = "drawn", *, clears_means: bool = True
    ) -> None:
        """Find the units of the learner's network.

        Args:
            learner: has its initial parameters.
            new_weights: drawn, he_uniform or stored.
            clears_means: whether the optimizer's means of the reset weights are cleared.

        Raises:
            StudyError: there are no such units.
        """
        self.units = find_hidden_units(learner.network)
        self._clears_means = clears_means
        self._network = learner.setting.network
        if new_weights == "he_uniform":
            self._network = replace(self._network, initialization="he_uniform")
        self._stored: dict[str, Tensor] = {}
        if new_weights == "stored":
            self._stored = learner.parameters.split(learner.parameters.flat.detach().clone())
        self._draws: dict[tuple[int, str], Iterator[list[Tensor]]] = {}
        self._may_wait = learner.device.type == "cpu"
        self._new: dict[str, Tensor] = {}
        self._used: dict[str, Tensor] = {}

    def start_task(self, learner: Learner) -> None:
        """Replace the draws of the previous task by those of the current one.

        Resets must not wait for a GPU, so there the new rows of a task are drawn in advance.
        """
        self._draws = {}
        if self._may_wait or self._stored:
            return
        self._warn_of_repeated_draws()
        runs = len(learner.seed_of)
        self._new, self._used = {}, {}
        for units in self.units:
            self._used[units.layer] = learner.seed_of.new_zeros(runs, 1)
            self._new |= self._draw_in_advance(learner, units)

    def _draw_in_advance(self, learner: Learner, units: Units) -> dict[str, Tensor]:
        """Draw the first new rows of a layer, by parameter, shapes ``(seed, row, …)``."""
        of_seeds = []
        for seed in learner.seeds:
            rows = itertools.islice(self._draw_rows(learner, seed, units), DRAWS * units.width)
            of_seeds.append([torch.stack(rows_of_name) for rows_of_name in zip(*rows, strict=True)])
        stacked = (torch.stack(tensors) for tensors in zip(*of_seeds, strict=True))
        return {
            name: tensor.to(learner.device, learner.dtype)
            for name, tensor in zip(units.incoming, stacked, strict=True)
        }

    def _warn_of_repeated_draws(self) -> None:
        """Log the layers that used more new rows in the previous task than were drawn."""
        for units in self.units:
            used = self._used.get(units.layer)
            if used is not None and int(used.max()) > DRAWS * units.width:
                warn_once(
                    f"{units.layer}: a run reset more than {DRAWS * units.width} units within a "
                    "task, so some units got the same new weights"
                )

    def reinitialize(self, learner: Learner, chosen: Mapping[str, Tensor]) -> None:
        """Reset some units.

        Args:
            learner: its parameters and optimizer are changed.
            chosen: by layer, booleans of shape ``(run, unit)``.
        """
        flat = learner.parameters.flat.detach()
        mask = torch.zeros_like(flat, dtype=torch.bool)
        values = torch.zeros_like(flat)
        masks = learner.parameters.split(mask)
        tensors = learner.parameters.split(values)
        if self._may_wait:
            self._write_chosen(learner, chosen, masks, tensors)
            if not mask.any():
                return
        else:
            self._write_all(learner, chosen, masks, tensors)
        learner.reinitialize(mask, values, clears_means=self._clears_means)

    def _write_chosen(
        self,
        learner: Learner,
        chosen: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
    ) -> None:
        """Write masks and new values of chosen units, one by one: fast if there are few.

        Args:
            learner: whose units are reset.
            chosen: by layer, booleans of shape ``(run, unit)``.
            masks: is set where a parameter is reset, by name, shapes ``(run, …)``.
            values: is set to new values, by name, shapes ``(run, …)``.
        """
        for units in self.units:
            for run, unit in chosen[units.layer].nonzero().tolist():
                rows = self._new_rows(learner, run, units, unit)
                for name, row in zip(units.incoming, rows, strict=True):
                    values[name][run, unit] = row
                    masks[name][run, unit] = True
                for name in units.outgoing:
                    units.columns(masks[name])[run, :, :, unit] = True

    def _write_all(
        self,
        learner: Learner,
        chosen: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
    ) -> None:
        """Write the same as `_write_chosen` for all units at once, without waiting for a GPU."""
        for units in self.units:
            is_chosen = chosen[units.layer]
            for name, rows in self._rows_of_all(learner, units, is_chosen).items():
                is_new = is_chosen.view(*is_chosen.shape, *[1] * (rows.ndim - 2))
                values[name].copy_(rows.where(is_new, values[name]))
                masks[name].logical_or_(is_new)
            for name in units.outgoing:
                units.columns(masks[name]).logical_or_(is_chosen[:, None, None, :, None])

    def _rows_of_all(self, learner: Learner, units: Units, is_chosen: Tensor) -> dict[str, Tensor]:
        """Return a new row for every unit, of which only those of chosen units are used up.

        The chosen units of a run get its rows in the order of units, as in `_new_rows`. After the
        last row the first one is used again.

        Returns:
            By parameter, shapes ``(run, unit, …)``.
        """
        if self._stored:
            return {name: self._stored[name] for name in units.incoming}
        used = self._used[units.layer]
        places = used + is_chosen.cumsum(dim=1) - 1
        used += is_chosen.sum(dim=1, keepdim=True)
        seeds = learner.seed_of[:, None]
        return {
            name: self._new[name][seeds, places % self._new[name].shape[1]]
            for name in units.incoming
        }

    def _new_rows(self, learner: Learner, run: int, units: Units, unit: int) -> list[Tensor]:
        """Return new rows of a unit's incoming parameters, in their order."""
        if self._stored:
            return [self._stored[name][run, unit] for name in units.incoming]
        key = (run, units.layer)
        if key not in self._draws:
            seed = learner.seeds[int(learner.seed_of[run])]
            self._draws[key] = self._draw_rows(learner, seed, units)
        return next(self._draws[key])

    def _draw_rows(self, learner: Learner, seed: int, units: Units) -> Iterator[list[Tensor]]:
        """Yield new rows for one unit after the other, from new initial values of the layer.

        All arms of a seed get the same rows.
        """
        for draw in itertools.count():
            purpose = f"units of {units.layer}, draw {draw}"
            tensors = architecture.draw_initial(
                learner.network, self._network, seed, learner.task, purpose
            )
            for unit in range(units.width):
                yield [tensors[name][unit] for name in units.incoming]


class _Tracer(fx.Tracer):
    """Traces into `nn.Sequential` and into modules that contain activations, and no further."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, activations.ACTIVATION_CLASSES):
            return True
        if isinstance(m, nn.Sequential):
            return False
        return not any(isinstance(part, activations.ACTIVATION_CLASSES) for part in m.modules())


def _nodes_before(node: fx.Node, module_of: Mapping[fx.Node, nn.Module]) -> Iterator[fx.Node]:
    """Yield the norms before an activation, if any, and then the layer before them."""
    before = node.args[0]
    while isinstance(before, fx.Node) and len(before.users) == 1 and before in module_of:
        module = module_of[before]
        if isinstance(module, (*normalization.NORM_CLASSES, *LAYERS)):
            yield before
        if not isinstance(module, normalization.NORM_CLASSES):
            return
        before = before.args[0]


def _nodes_after(node: fx.Node, module_of: Mapping[fx.Node, nn.Module]) -> Iterator[fx.Node]:
    """Yield all that uses the units of an activation."""
    for after in node.users:
        is_flatten = after.target in ("flatten", torch.flatten)
        if is_flatten or isinstance(module_of.get(after), PASS_THROUGH):
            yield from _nodes_after(after, module_of)
        else:
            yield after
