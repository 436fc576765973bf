"""Hidden units in treatments: dead units, pre-activations, and copies of units."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.errors import StudyError
from plasticity.interventions.subject import Subject
from plasticity.models.ensemble import as_units, record_activations
from plasticity.training.hidden_units import Units, find_hidden_units

BATCH = 256  # most inputs that are computed together


def find_dead_units(subject: Subject) -> dict[Units, Tensor]:
    """Find the hidden units that are zero on all inputs.

    Inputs are computed in batches. In a network with batch norm, a unit is dead if it is zero in
    each of them.

    Args:
        subject: the checkpoint, with the inputs.

    Returns:
        Booleans of shape ``(unit,)``, by the units of each layer.

    Raises:
        StudyError: the network has no hidden units that can be changed one by one.
    """
    hidden_units = find_hidden_units(subject.network)
    dead = {units: torch.ones(units.width, dtype=torch.bool) for units in hidden_units}
    with record_activations(subject.network, {}) as hidden:
        for _ in _compute_batches(subject, subject.parameters):
            for units in hidden_units:
                values = {units.layer: as_units(hidden[units.layer][None])}
                dead[units] &= units.magnitudes(values)[0] == 0
    return dead


def largest_preactivations(
    subject: Subject, parameters: Mapping[str, Tensor], units: Units
) -> Tensor:
    """Compute the largest pre-activation of each unit of a layer over all inputs.

    Args:
        subject: gives the network and the inputs.
        parameters: by name.
        units: the units of the layer.

    Returns:
        Shape ``(unit,)``. The largest is over positions, too.
    """
    largest = []

    def record(module: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> None:
        largest.append(as_units(outputs[None])[0].amax(dim=0))

    hook = subject.network.get_submodule(last_layer(units)).register_forward_hook(record)
    try:
        for _ in _compute_batches(subject, parameters):
            pass
    finally:
        hook.remove()
    return torch.stack(largest).amax(dim=0)


def last_layer(units: Units) -> str:
    """Return the name of the layer that computes the pre-activations: a norm, if there is one."""
    return units.incoming[-1].rpartition(".")[0]


def last_parameters(units: Units) -> list[str]:
    """Return the names of the parameters that scale and shift the pre-activations."""
    return [name for name in units.incoming if name.rpartition(".")[0] == last_layer(units)]


def bias_of(units: Units) -> str:
    """Return the name of the bias that shifts the pre-activations.

    Raises:
        StudyError: the layer has no bias.
    """
    name = units.incoming[-1]
    if not name.endswith(".bias"):
        raise StudyError(
            f"the hidden units of {units.layer} have no bias that the treatment could change: "
            "choose another kind or treatment"
        )
    return name


def with_copies(
    parameters: Mapping[str, Tensor], units: Units, sources: Tensor
) -> dict[str, Tensor]:
    """Replace hidden units of a layer by copies of other units of the layer.

    A copy gets the incoming weights of its source. The source and its copies share the outgoing
    weights of the source in equal parts. So the next layers get what they would get if the replaced
    units were zero.

    Args:
        parameters: by name.
        units: the units of the layer.
        sources: index of the unit that each unit is a copy of; its own index if it stays. Shape
            ``(unit,)``.

    Returns:
        All parameters by name. Those of the units are new tensors.
    """
    copied = dict(parameters)
    for name in units.incoming:
        copied[name] = parameters[name][sources]
    members = sources.bincount(minlength=units.width)
    for name in units.outgoing:
        weight = parameters[name]
        parts = units.columns(weight[None])[:, :, :, sources] / members[sources][:, None]
        copied[name] = parts.reshape(weight.shape)
    return copied


def rank_live_units(subject: Subject, units: Units, is_dead: Tensor) -> Tensor:
    """Sort the live units of a layer by the Euclidean norm of their outgoing weights.

    Args:
        subject: the checkpoint.
        units: the units of the layer.
        is_dead: booleans of shape ``(unit,)``.

    Returns:
        Indices, largest norm first.

    Raises:
        StudyError: the units cannot be copied, because a layer norm before the activation depends
            on all units together.
    """
    norm = subject.network.get_submodule(last_layer(units))
    if isinstance(norm, (nn.LayerNorm, nn.GroupNorm)):
        raise StudyError(
            f"the treatment {subject.treatment} cannot keep the function of a network with layer "
            "norm: choose another norm or treatment"
        )
    squares = torch.zeros(units.width, dtype=torch.float64)
    for name in units.outgoing:
        columns = units.columns(subject.parameters[name][None])
        squares += columns.square().sum(dim=(0, 1, 2, 4))
    order = squares.argsort(descending=True, stable=True)
    return order[~is_dead[order]]


@torch.no_grad()
def _compute_batches(subject: Subject, parameters: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Yield the network's outputs for one batch of inputs after the other."""
    count = math.ceil(len(subject.inputs) / BATCH)
    # parts of equal size, because batch norm has no statistics of a last batch of one input
    for inputs in subject.inputs.tensor_split(count):
        yield functional_call(subject.network, dict(parameters), (inputs,))
