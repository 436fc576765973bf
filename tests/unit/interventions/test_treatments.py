"""Treatments equal their formulas, written out in NumPy, and keep what they promise to keep."""

import ast
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from subjects import (
    EXAMPLES,
    OUTPUTS,
    RESNET,
    make_subject,
    outputs,
    treat,
    with_activation,
)
from torch import nn
from torch.func import functional_call

from plasticity.config import registry
from plasticity.config.models import Network
from plasticity.curvature import unit_measures
from plasticity.errors import StudyError
from plasticity.interventions import units as hidden
from plasticity.interventions.subject import Subject
from plasticity.models import activations, architecture
from plasticity.rng import generator
from plasticity.training.hidden_units import find_hidden_units

TREATMENTS = registry.names("treatments")
DOSES = {"share": (0.2, 0.5, 1.0), "positive": (0.5, 1.0, 3.0), "above_one": (1.5, 2.0, 5.0)}
FAMILIES = {
    "control": {"none", "fresh", "reset_optimizer"},
    "restoring": {
        "shrink",
        "perturb",
        "shrink_perturb",
        "toward_initial",
        "rescale_norms",
        "restore_spectrum",
        "restore_distribution",
        "shuffle_within_tensor",
        "reset_first_layer",
        "reset_last_layer",
        "reset_dead_units",
        "zero_biases",
    },
    "harmful": {"low_rank", "clone_units", "saturate"},
    "preserving": {"rescale_layers", "split_units"},
}
DRAWING = {
    "fresh",
    "perturb",
    "shrink_perturb",
    "shuffle_within_tensor",
    "reset_first_layer",
    "reset_last_layer",
    "reset_dead_units",
    "clone_units",
    "saturate",
}


def constant(treatment, name):
    return registry.constant("treatments", treatment, name)


def doses(treatment):
    """Return strengths to test, in ascending order; None for a treatment without strength."""
    return DOSES.get(constant(treatment, "STRENGTH"), (None,))


def can_take(treatment, example):
    refused = treatment == "split_units" and "layer norm" in example
    activation = EXAMPLES[example].network.activation
    return not refused and activation in (constant(treatment, "ACTIVATIONS") or [activation])


CASES = [
    (treatment, example)
    for treatment in TREATMENTS
    for example in EXAMPLES
    if can_take(treatment, example)
]


# --- the formulas ---------------------------------------------------------------------------------


def arrays(tensors):
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def draws(subject):
    """Draw the newly initialised network of a treatment."""
    purpose = f"treatment {subject.treatment}"
    drawn = architecture.draw_initial(
        subject.network, subject.config, subject.seed, subject.task, purpose
    )
    return arrays(drawn)


def torch_generator(subject):
    start = generator(subject.seed, f"treatment {subject.treatment}", subject.task)
    return torch.Generator().manual_seed(int(start.integers(2**63)))


def is_norm(name):
    return "norm" in name


def is_matrix(name):
    return name.endswith("weight") and not is_norm(name) and name != "positions.weight"


def columns(weight, unit, width, expansion):
    """List the columns of a flattened outgoing weight that belong to a unit."""
    places = math.prod(weight.shape[1:]) // (width * expansion)
    return [
        (copy * width + unit) * places + place
        for copy in range(expansion)
        for place in range(places)
    ]


def preactivations(subject, layer):
    """Record what goes into an activation, shape ``(row, unit)``."""
    recorded = []
    network = subject.network.double()
    network.load_state_dict(subject.parameters)
    activation = network.get_submodule(layer.activation)
    hook = activation.register_forward_pre_hook(lambda module, inputs: recorded.append(inputs[0]))
    with torch.no_grad():
        network(subject.inputs)
    hook.remove()
    (values,) = (values.numpy() for values in recorded)
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    return values.reshape(-1, values.shape[-1])


def dead_units(subject, layer):
    return np.flatnonzero(preactivations(subject, layer).max(axis=0) <= 0).tolist()


def keep(theta, theta0, subject, example):
    return theta


def shrink(theta, theta0, subject, example, s):
    return {name: value * (1.0 if is_norm(name) else 1 - s) for name, value in theta.items()}


def perturb(theta, theta0, subject, example, s):
    stds = architecture.initial_stds(subject.network, subject.config)
    draw = torch_generator(subject)
    for name, value in theta.items():
        noise = torch.empty(value.shape, dtype=torch.float64).normal_(generator=draw).numpy()
        theta[name] = value + s * stds[name] * noise
    return theta


def shrink_perturb(theta, theta0, subject, example, s):
    drawn = draws(subject)
    for name in theta:
        if not is_norm(name):
            theta[name] = theta[name] + s * (drawn[name] - theta[name])
    return theta


def toward_initial(theta, theta0, subject, example, s):
    return {name: theta[name] + s * (theta0[name] - theta[name]) for name in theta}


def rescale_norms(theta, theta0, subject, example):
    for name in theta:
        initial_norm = np.sqrt((theta0[name] ** 2).sum())
        if initial_norm > 0:
            theta[name] *= initial_norm / np.sqrt((theta[name] ** 2).sum())
    return theta


def left_singular_vectors(matrix):
    """Return singular values and left singular vectors, largest first, by an eigenproblem."""
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    count = min(matrix.shape)
    return np.sqrt(values[::-1][:count]), vectors[:, ::-1][:, :count]


def restore_spectrum(theta, theta0, subject, example):
    for name in filter(is_matrix, theta):
        matrix = theta[name].reshape(len(theta[name]), -1)
        values, vectors = left_singular_vectors(matrix)
        initial_values, _ = left_singular_vectors(theta0[name].reshape(matrix.shape))
        total = np.zeros_like(matrix)
        for value, initial_value, vector in zip(values, initial_values, vectors.T, strict=True):
            total += initial_value / value * np.outer(vector, vector @ matrix)
        theta[name] = total.reshape(theta[name].shape)
    return theta


def low_rank(theta, theta0, subject, example, s):
    for name in filter(is_matrix, theta):
        matrix = theta[name].reshape(len(theta[name]), -1)
        values, vectors = left_singular_vectors(matrix)
        rank = max(1, len(values) - round(s * len(values)))
        projected = vectors[:, :rank] @ vectors[:, :rank].T @ matrix
        projected *= np.linalg.norm(matrix) / np.linalg.norm(projected)
        theta[name] = projected.reshape(theta[name].shape)
    return theta


def restore_distribution(theta, theta0, subject, example):
    for name, value in theta.items():
        smallest_first = sorted(range(value.size), key=lambda place: (value.flat[place], place))
        initial_values = sorted(theta0[name].flatten())
        restored = np.empty(value.size)
        for rank, place in enumerate(smallest_first):
            restored[place] = initial_values[rank]
        theta[name] = restored.reshape(value.shape)
    return theta


def shuffle_within_tensor(theta, theta0, subject, example):
    draw = torch_generator(subject)
    for name, value in theta.items():
        if not is_norm(name):
            order = torch.randperm(value.size, generator=draw).tolist()
            theta[name] = np.array([value.flat[place] for place in order]).reshape(value.shape)
    return theta


def reset_first_layer(theta, theta0, subject, example):
    drawn, first = draws(subject), next(iter(theta)).removesuffix("weight")
    for name in (f"{first}weight", f"{first}bias"):
        if name in theta:
            theta[name] = drawn[name]
    return theta


def reset_last_layer(theta, theta0, subject, example):
    drawn = draws(subject)
    return theta | {name: drawn[name] for name in ("output.weight", "output.bias")}


def reset_dead_units(theta, theta0, subject, example):
    drawn = draws(subject)
    for layer in example.hidden:
        width = len(theta[layer.incoming[0]])
        for unit in dead_units(subject, layer):
            for name in layer.outgoing:
                theta[name].reshape(len(theta[name]), -1)[
                    :, columns(theta[name], unit, width, example.expansion)
                ] = 0
    for layer in example.hidden:
        for unit in dead_units(subject, layer):
            for name in layer.incoming:
                theta[name][unit] = drawn[name][unit]
    return theta


def zero_biases(theta, theta0, subject, example):
    return {name: value * (not name.endswith("bias")) for name, value in theta.items()}


def copy_units(theta, layer, members, expansion):
    """Overwrite units, one column after the other. `members` has the copies of each source."""
    width = len(theta[layer.incoming[0]])
    for source, copies in members.items():
        for name in layer.incoming:
            for unit in copies:
                theta[name][unit] = theta[name][source]
        for name in layer.outgoing:
            flat = theta[name].reshape(len(theta[name]), -1)
            part = flat[:, columns(theta[name], source, width, expansion)] / (1 + len(copies))
            for unit in [source, *copies]:
                flat[:, columns(theta[name], unit, width, expansion)] = part


def clone_units(theta, theta0, subject, example, s):
    draw = torch_generator(subject)
    for layer in example.hidden:
        width = len(theta[layer.incoming[0]])
        order = torch.randperm(width, generator=draw).tolist()
        count = min(round(s * width), width - 1)
        members = {}
        for place, unit in enumerate(order[:count]):
            source = order[width - 1 - place % (width - count)]
            members.setdefault(source, []).append(unit)
        copy_units(theta, layer, members, example.expansion)
    return theta


def saturate(theta, theta0, subject, example, s):
    draw = torch_generator(subject)
    for layer in example.hidden:
        tensors = {name: torch.from_numpy(value) for name, value in theta.items()}
        z = preactivations(replace(subject, parameters=tensors), layer)
        order = torch.randperm(z.shape[1], generator=draw).tolist()
        for unit in order[: round(s * z.shape[1])]:
            if z[:, unit].max() > -3:
                theta[layer.incoming[-1]][unit] -= z[:, unit].max() + 3
    return theta


def rescale_layers(theta, theta0, subject, example, s):
    for place, layer in enumerate(example.hidden):
        factor = s if place % 2 == 0 else 1 / s
        for name in layer.incoming[-2:]:  # of a norm, if there is one
            theta[name] = theta[name] * factor
        for name in layer.outgoing:
            theta[name] = theta[name] / factor
    return theta


def split_units(theta, theta0, subject, example):
    for layer in example.hidden:
        dead = dead_units(subject, layer)
        width = len(theta[layer.incoming[0]])
        norms = {}
        for unit in set(range(width)) - set(dead):
            norms[unit] = sum(
                np.sum(
                    theta[name].reshape(len(theta[name]), -1)[
                        :, columns(theta[name], unit, width, example.expansion)
                    ]
                    ** 2
                )
                for name in layer.outgoing
            )
        largest_first = sorted(norms, key=norms.get, reverse=True)
        members = {}
        for index, unit in enumerate(dead):
            members.setdefault(largest_first[index % len(largest_first)], []).append(unit)
        copy_units(theta, layer, members, example.expansion)
    return theta


FORMULAS = {
    "none": keep,
    "fresh": lambda theta, theta0, subject, example: draws(subject),
    "reset_optimizer": keep,
    "shrink": shrink,
    "perturb": perturb,
    "shrink_perturb": shrink_perturb,
    "toward_initial": toward_initial,
    "rescale_norms": rescale_norms,
    "restore_spectrum": restore_spectrum,
    "restore_distribution": restore_distribution,
    "shuffle_within_tensor": shuffle_within_tensor,
    "reset_first_layer": reset_first_layer,
    "reset_last_layer": reset_last_layer,
    "reset_dead_units": reset_dead_units,
    "zero_biases": zero_biases,
    "low_rank": low_rank,
    "clone_units": clone_units,
    "saturate": saturate,
    "rescale_layers": rescale_layers,
    "split_units": split_units,
}


@pytest.mark.parametrize(("treatment", "example"), CASES)
def test_treatment_equals_its_formula(treatment, example):
    subject = make_subject(EXAMPLES[example], treatment)
    for strength in doses(treatment):
        treated = treat(subject, strength)
        theta, theta0 = arrays(subject.parameters), arrays(subject.initial)
        arguments = () if strength is None else (strength,)
        expected = FORMULAS[treatment](theta, theta0, subject, EXAMPLES[example], *arguments)
        assert list(treated) == list(subject.parameters)
        for name, tensor in treated.items():
            np.testing.assert_allclose(
                tensor.numpy(), expected[name], rtol=1e-9, atol=1e-11, err_msg=name
            )


# --- what all treatments promise ------------------------------------------------------------------


def storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}


@pytest.mark.parametrize(("treatment", "example"), CASES)
def test_treatment_changes_nothing_of_its_subject_and_returns_new_tensors(treatment, example):
    subject = make_subject(EXAMPLES[example], treatment)
    before = [arrays(subject.parameters), arrays(subject.initial), subject.inputs.numpy().copy()]
    weights = arrays(subject.network.state_dict())
    treated = treat(subject, doses(treatment)[-1])
    after = [arrays(subject.parameters), arrays(subject.initial), subject.inputs.numpy()]
    np.testing.assert_equal(after, before)
    np.testing.assert_equal(arrays(subject.network.state_dict()), weights)
    assert not any(module._forward_hooks for module in subject.network.modules())
    own = storages(subject.parameters) | storages(subject.initial)
    assert not own & storages(treated)
    assert len(storages(treated)) == len(treated)
    for name, tensor in treated.items():
        assert tensor.dtype == torch.float64
        assert tensor.shape == subject.parameters[name].shape
        assert tensor.is_contiguous()
        assert tensor.isfinite().all()
        assert not tensor.requires_grad


def squared_change(subject, example, treated):
    return sum(
        float((treated[name] - tensor).square().sum())
        for name, tensor in subject.parameters.items()
    )


def number_of_flat_units(subject, example, treated):
    treated_subject = replace(subject, parameters=treated)
    return sum(
        int((preactivations(treated_subject, layer).max(axis=0) < -3 + 1e-9).sum())
        for layer in example.hidden
    )


@pytest.mark.parametrize(
    ("treatment", "example"), [case for case in CASES if constant(case[0], "STRENGTH")]
)
def test_larger_strength_is_a_larger_change(treatment, example):
    subject = make_subject(EXAMPLES[example], treatment, dead=False)
    # biases of later layers fall less if more units of earlier layers are flat
    size = number_of_flat_units if treatment == "saturate" else squared_change
    none = size(subject, EXAMPLES[example], subject.parameters)
    sizes = [
        size(subject, EXAMPLES[example], treat(subject, strength)) for strength in doses(treatment)
    ]
    assert none < sizes[0] < sizes[1] < sizes[2]


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


@pytest.mark.parametrize("treatment", ["perturb", "shrink_perturb"])
def test_strengths_share_their_noise(treatment):
    subject = make_subject(EXAMPLES["vit"], treatment)
    theta = flat(subject.parameters)
    changes = [(flat(treat(subject, s)) - theta) / s for s in doses(treatment)]
    assert changes[0].abs().max() > 0.1
    for change in changes[1:]:
        torch.testing.assert_close(change, changes[0], rtol=1e-9, atol=1e-12)


def test_larger_strength_replaces_the_same_units_and_more():
    subject = make_subject(EXAMPLES["mlp"], "clone_units")
    replaced = []
    for strength in (0.1, 0.2, 0.5, 0.7, 1.0):
        rows = treat(subject, strength)["hidden_1.weight"]
        is_new = (rows != subject.parameters["hidden_1.weight"]).any(dim=1)
        replaced.append(set(is_new.nonzero()[:, 0].tolist()))
    assert [len(units) for units in replaced] == [1, 1, 3, 4, 5]
    for fewer, more in pairwise(replaced):
        assert fewer <= more


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_draws_depend_on_seed_task_and_treatment_only(treatment):
    subject = make_subject(EXAMPLES["cnn"], treatment)
    apply = registry.load("treatments", treatment).treat
    arguments = [strength for strength in doses(treatment)[:1] if strength is not None]
    first = flat(apply(subject, *arguments))
    assert torch.equal(flat(apply(subject, *arguments)), first)
    assert torch.equal(flat(apply(make_subject(EXAMPLES["cnn"], treatment), *arguments)), first)
    for change in ({"seed": 1}, {"task": 4}, {"treatment": "other"}):
        other = flat(apply(replace(subject, **change), *arguments))
        assert torch.equal(other, first) == (treatment not in DRAWING)


# --- what single treatments promise ---------------------------------------------------------------


def fisher_trace(subject, parameters):
    """Compute the mean squared norm of per-sample gradients, of the loss on label 0."""
    network = subject.network.double()
    network.load_state_dict(parameters)
    traces = []
    for sample in range(5):
        # a batch of all samples, for the statistics of batch norm
        losses = nn.functional.cross_entropy(
            network(subject.inputs), torch.zeros(len(subject.inputs)).long(), reduction="none"
        )
        gradients = torch.autograd.grad(losses[sample], list(network.parameters()))
        traces.append(float(sum(gradient.square().sum() for gradient in gradients)))
    return np.mean(traces)


@pytest.mark.parametrize(
    ("treatment", "example"), [case for case in CASES if case[0] in FAMILIES["preserving"]]
)
def test_preserving_treatment_keeps_the_function_and_changes_curvature(treatment, example):
    subject = make_subject(EXAMPLES[example], treatment)
    before = outputs(subject, subject.parameters)
    for strength in doses(treatment):
        treated = treat(subject, strength)
        scale = before.abs().max()
        torch.testing.assert_close(
            outputs(subject, treated) / scale, before / scale, rtol=0, atol=1e-12
        )
        norms = [float(flat(tensors).norm()) for tensors in (subject.parameters, treated)]
        assert abs(norms[1] / norms[0] - 1) > 1e-3
        traces = [fisher_trace(subject, tensors) for tensors in (subject.parameters, treated)]
        assert abs(traces[1] / traces[0] - 1) > 1e-3


@pytest.mark.parametrize("activation", constant("rescale_layers", "ACTIVATIONS"))
def test_rescaled_layers_keep_the_function_of_every_declared_activation(activation):
    example = with_activation(
        EXAMPLES["mlp, crelu" if activation == "crelu" else "mlp"], activation
    )
    subject = make_subject(example, "rescale_layers")
    torch.testing.assert_close(
        outputs(subject, treat(subject, 3.0)),
        outputs(subject, subject.parameters),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    "activation",
    sorted(set(activations.ACTIVATIONS) - set(constant("rescale_layers", "ACTIVATIONS"))),
)
def test_rescaled_layers_change_the_function_of_the_other_activations(activation):
    if activations.ACTIVATIONS[activation].expansion > 1:
        example = with_activation(EXAMPLES["mlp, crelu"], activation)
    else:
        example = with_activation(EXAMPLES["mlp"], activation)
    subject = make_subject(example, "rescale_layers")
    difference = outputs(subject, treat(subject, 3.0)) - outputs(subject, subject.parameters)
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize("treatment", ["reset_dead_units", "split_units"])
@pytest.mark.parametrize("example", ["mlp", "cnn", "vit", "resnet18"])
def test_network_without_dead_units_stays_equal(treatment, example):
    subject = make_subject(EXAMPLES[example], treatment, samples=300, dead=False)
    for layer in EXAMPLES[example].hidden:
        subject.parameters[layer.incoming[-1]] += 5
        for name in layer.outgoing:
            subject.parameters[name].abs_()
    assert not any(is_dead.any() for is_dead in hidden.find_dead_units(subject).values())
    assert torch.equal(flat(treat(subject)), flat(subject.parameters))


@pytest.mark.parametrize("treatment", ["low_rank", "clone_units"])
def test_strength_that_rounds_to_nothing_changes_nothing(treatment):
    subject = make_subject(EXAMPLES["mlp"], treatment)
    assert torch.equal(flat(treat(subject, 0.01)), flat(subject.parameters))


def test_layer_of_dead_units_only_is_not_split():
    subject = make_subject(EXAMPLES["mlp"], "split_units")
    subject.parameters["hidden_3.bias"][:] = -1e4
    treated = treat(subject)
    assert torch.equal(treated["output.weight"], subject.parameters["output.weight"])
    assert not torch.equal(treated["hidden_1.weight"], subject.parameters["hidden_1.weight"])


@pytest.mark.parametrize("sample", [30, 570])
def test_unit_that_one_of_many_inputs_activates_is_not_dead(sample):
    subject = make_subject(EXAMPLES["mlp"], "reset_dead_units", samples=600, dead=False)
    weight, bias = subject.parameters["hidden_1.weight"], subject.parameters["hidden_1.bias"]
    weight[2] = 0
    weight[2, 0] = 1
    first_pixels = subject.inputs[:, 0, 0, 0]
    first_pixels[sample] = 50.0
    bias[2] = -49.0
    (first, *_) = hidden.find_dead_units(subject).values()
    assert not first[2]
    first_pixels[sample] = 48.0
    (first, *_) = hidden.find_dead_units(subject).values()
    assert first.nonzero().tolist() == [[2]]


@pytest.mark.parametrize("example", ["mlp", "cnn", "vit"])
def test_largest_preactivations_are_over_all_batches(example):
    subject = make_subject(EXAMPLES[example], samples=2 * hidden.BATCH + 1)
    units_of_layers = find_hidden_units(subject.network)
    for layer, units in zip(EXAMPLES[example].hidden, units_of_layers, strict=True):
        found = hidden.largest_preactivations(subject, subject.parameters, units)
        expected = preactivations(subject, layer).max(axis=0)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


CLONED = ["mlp", "cnn", "vit", "mlp, batch norm", "mlp, crelu"]


def groups_of_clones(subject, layer, treated):
    """Return the groups of units with equal incoming weights."""
    width = len(treated[layer.incoming[0]])
    rows = [
        tuple(np.concatenate([treated[name][unit].flatten().numpy() for name in layer.incoming]))
        for unit in range(width)
    ]
    groups = {}
    for unit, row in enumerate(rows):
        groups.setdefault(row, []).append(unit)
    return [group for group in groups.values() if len(group) > 1]


@pytest.mark.parametrize("example", CLONED)
def test_clones_compute_what_is_left_without_the_replaced_units(example):
    subject = make_subject(EXAMPLES[example], "clone_units", dead=False)
    treated = treat(subject, 0.5)
    pruned = {name: tensor.clone() for name, tensor in subject.parameters.items()}
    for layer in EXAMPLES[example].hidden:
        bias = layer.incoming[-1]
        replaced = (treated[bias] != subject.parameters[bias]).nonzero()[:, 0].tolist()
        assert len(replaced) == len(treated[bias]) // 2
        for name in layer.outgoing:
            matrix = pruned[name].flatten(1)  # a view
            for unit in replaced:
                width, expansion = len(treated[bias]), EXAMPLES[example].expansion
                matrix[:, columns(pruned[name], unit, width, expansion)] = 0
    torch.testing.assert_close(
        outputs(subject, treated), outputs(subject, pruned), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("example", CLONED)
def test_clones_get_equal_gradients_so_they_stay_clones(example):
    subject = make_subject(EXAMPLES[example], "clone_units", dead=False)
    treated = {name: value.requires_grad_() for name, value in treat(subject, 0.5).items()}
    losses = functional_call(subject.network, treated, (subject.inputs,)).square().sum()
    gradients = dict(zip(treated, torch.autograd.grad(losses, treated.values()), strict=True))
    treated = {name: value.detach() for name, value in treated.items()}
    for layer in EXAMPLES[example].hidden:
        groups = groups_of_clones(subject, layer, treated)
        assert sum(len(group) - 1 for group in groups) == len(treated[layer.incoming[0]]) // 2
        for name in layer.incoming:
            scale = gradients[name].abs().max()
            assert scale > 0
            for first, *others in groups:
                for unit in others:
                    difference = gradients[name][unit] - gradients[name][first]
                    assert difference.abs().max() < 1e-12 * scale


def saturated_shares(subject, parameters):
    """Return the share of saturated units of each hidden layer, in the order of layers."""
    tensors = {name: tensor[None] for name, tensor in parameters.items()}
    watch = unit_measures.hidden_units(subject.network, tensors, subject.inputs[None])
    return [
        float(unit_measures.saturated(slopes).double().mean()) for slopes in watch.slopes.values()
    ]


@pytest.mark.parametrize("activation", constant("saturate", "ACTIVATIONS"))
def test_shifted_units_are_saturated_with_every_declared_activation(activation):
    example = with_activation(EXAMPLES["mlp"], activation)
    subject = make_subject(example, "saturate", samples=300, dead=False)
    biases = [layer.incoming[-1] for layer in example.hidden]
    for bias in biases:
        subject.parameters[bias] += 5  # to have no saturated units of relu and leaky_relu before
    before = saturated_shares(subject, subject.parameters)
    after = [saturated_shares(subject, treat(subject, s)) for s in (0.34, 0.67, 1.0)]
    for layer, share in enumerate(before):
        expected = [1 / 3, 2 / 3, 1] if share == 0 else [share, share, 1]
        for found, least in zip([shares[layer] for shares in after], expected, strict=True):
            assert found >= least - 1e-12
    assert before[0] < 0.5


@pytest.mark.parametrize(
    "activation",
    [
        name
        for name, kind in activations.ACTIVATIONS.items()
        if name not in constant("saturate", "ACTIVATIONS") and kind.expansion == 1
    ],
)
def test_shifted_units_of_the_other_activations_are_not_flat(activation):
    subject = make_subject(with_activation(EXAMPLES["mlp"], activation), "saturate", samples=300)
    assert saturated_shares(subject, treat(subject, 1.0))[0] < 0.5


# --- networks that cannot be treated --------------------------------------------------------------


RESNET_WITH_LAYER_NORM = EXAMPLES["resnet18"]._replace(
    network=replace(RESNET, options={"width": 3, "norm": "layer"})
)


@pytest.mark.parametrize("example", [EXAMPLES["mlp, layer norm"], RESNET_WITH_LAYER_NORM])
def test_units_under_a_layer_norm_are_not_split(example):
    network = architecture.build(example.network, example.shape, OUTPUTS)
    initial = architecture.draw_initial(network, example.network, 0)
    inputs = torch.zeros(2, *example.shape).double()
    subject = Subject(network, example.network, initial, initial, inputs, 0, 1, "split_units")
    with pytest.raises(
        StudyError,
        match=r"^the treatment split_units cannot keep the function of a network with layer norm: "
        r"choose another norm or treatment$",
    ):
        treat(subject)


def custom_subject(network, treatment):
    parameters = {name: tensor.detach().double() for name, tensor in network.named_parameters()}
    config = Network("custom", "relu")
    inputs = torch.ones(4, 1, 1, 3).double()
    return Subject(network, config, parameters, parameters, inputs, 0, 1, treatment)


def test_hidden_units_without_biases_are_not_saturated():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, OUTPUTS)
    )
    with pytest.raises(
        StudyError,
        match=r"^the hidden units of 1 have no bias .* choose another kind or treatment$",
    ):
        treat(custom_subject(network, "saturate"), 1.0)


@pytest.mark.parametrize(
    "treatment", ["clone_units", "saturate", "rescale_layers", "split_units", "reset_dead_units"]
)
def test_network_without_hidden_units_is_refused(treatment):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, OUTPUTS))
    with pytest.raises(StudyError, match=r"choose another kind, method or treatment$"):
        treat(custom_subject(network, treatment), doses(treatment)[0])


# --- the files ------------------------------------------------------------------------------------


def test_every_treatment_has_its_family():
    families = {family: set() for family in FAMILIES}
    for treatment in TREATMENTS:
        families[constant(treatment, "FAMILY")].add(treatment)
    assert families == FAMILIES


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_file_is_short_documented_and_declares_what_the_experiment_reads(treatment):
    text = registry.path("treatments", treatment).read_text(encoding="utf-8")
    module = ast.parse(text)
    assert len(text.splitlines()) <= 30
    assert ast.get_docstring(module)
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef))
    assert function.name == "treat"
    assert ast.get_docstring(function)
    takes_strength = [argument.arg for argument in function.args.args] == ["subject", "strength"]
    assert takes_strength or [argument.arg for argument in function.args.args] == ["subject"]
    strength = constant(treatment, "STRENGTH")
    assert strength in (["share", "positive", "above_one"] if takes_strength else [None])
    assert constant(treatment, "OPTIMIZER_STATE") in ("kept", "cleared", "cleared_where_changed")
    activation_names = constant(treatment, "ACTIVATIONS")
    assert activation_names is None or set(activation_names) < set(activations.ACTIVATIONS)
