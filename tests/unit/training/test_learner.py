"""The learner that methods see: selected parameters, draws per seed, hidden activations."""

import math

import numpy as np
import pytest
import torch
from ensembles import CNN, SETTING, changed, new_trainer
from torch import nn
from torch.func import functional_call

from plasticity.config.models import Network
from plasticity.models import activations, architecture, ensemble
from plasticity.models.ensemble import Watch, forward, record_activations
from plasticity.training.learner import Learner

KINDS = {
    "mlp": (changed(network={"options": {"width": 8, "depth": 2, "norm": "layer"}}), 4),
    "mlp with batch norm": (
        changed(
            network={"activation": "crelu", "options": {"width": 8, "depth": 2, "norm": "batch"}}
        ),
        4,
    ),
    "cnn": (changed(CNN, network={"options": {"width": 6, "norm": "layer"}}), 20),
    "resnet18": (changed(network={"kind": "resnet18", "options": {"width": 2}}), 8),
    "vit": (
        changed(
            network={
                "kind": "vit",
                "activation": "gelu",
                "options": {"width": 8, "depth": 2, "heads": 2},
            }
        ),
        8,
    ),
}


def learner_of(kind, seeds=(3, 1, 3), dtype=torch.float64):
    setting, size = KINDS[kind]
    network = architecture.build(setting.network, (1, size, size), 3)
    return Learner(setting, seeds, network, (1, size, size), torch.device("cpu"), dtype)


def places(learner, mask):
    """Names of the parameters that a mask has, none of them in part."""
    found, start = set(), 0
    for name, parameter in learner.network.named_parameters():
        part = mask[start : start + parameter.numel()]
        assert part.all() or not part.any()
        found |= {name} if part.all() else set()
        start += parameter.numel()
    assert start == len(mask)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_masks_select_parameters_of_norms_and_layers(kind):
    learner = learner_of(kind)
    names = {name for name, _ in learner.network.named_parameters()}
    norms = {name for name in names if "norm" in name.split(".")[-2]}
    assert norms
    assert places(learner, learner.norm_mask()) == norms
    assert places(learner, learner.layer_mask("output")) == {"output.weight", "output.bias"}
    assert places(learner, learner.layer_mask("output", "no such layer")) == {
        "output.weight",
        "output.bias",
    }
    assert not learner.layer_mask().any()


def test_layer_mask_matches_full_names_only():
    network = architecture.build(
        Network("mlp", "relu", options={"width": 2, "depth": 10}), (1, 2, 2), 2
    )
    deep = Learner(SETTING, [0], network, (1, 2, 2), torch.device("cpu"), torch.float64)
    assert places(deep, deep.layer_mask("hidden_1")) == {"hidden_1.weight", "hidden_1.bias"}
    learner = learner_of("resnet18")
    assert places(learner, learner.layer_mask("conv_1")) == {"conv_1.weight"}
    assert places(learner, learner.layer_mask("stage_1.block_1.conv_1")) == {
        "stage_1.block_1.conv_1.weight"
    }


def test_per_parameter_repeats_a_number_of_each_tensor():
    learner = learner_of("cnn", dtype=torch.float32)
    values = {name: float(number) for number, name in enumerate(learner.parameters.shapes)}
    spread = learner.per_parameter(values)
    assert spread.dtype == torch.float32
    for name, part in learner.parameters.split(spread[None]).items():
        assert (part == values[name]).all()


def test_seeds_are_unique_and_per_run_repeats_them():
    learner = learner_of("mlp", seeds=[3, 1, 3, 7, 1])
    assert learner.seeds == [3, 1, 7]
    assert learner.seed_of.tolist() == [0, 1, 0, 2, 1]
    assert learner.per_run(torch.tensor([30, 10, 70])).tolist() == [30, 10, 30, 70, 10]
    fresh = learner.draw_parameters()
    assert torch.equal(fresh[0], fresh[2])
    assert torch.equal(fresh, learner.parameters.flat)
    assert not torch.equal(fresh[0], fresh[1])


def test_drawn_parameters_depend_on_seed_purpose_and_task_only():
    learner, other = learner_of("mlp"), learner_of("mlp", seeds=[3])
    first, again, else_ = (
        learner.draw_parameters(),
        learner.draw_parameters(),
        learner.draw_parameters("something else"),
    )
    learner.task = 1
    assert torch.equal(first, again)
    assert torch.equal(first[:1], other.draw_parameters())
    assert not torch.equal(first, else_)
    assert not torch.equal(first, learner.draw_parameters())


def test_generators_depend_on_seed_purpose_and_task_only():
    learner, other = learner_of("mlp", seeds=(3, 1)), learner_of("mlp", seeds=(1,))

    def numbers(learner, purpose, task=0):
        learner.task = task
        return [torch.rand(50, generator=draw).tolist() for draw in learner.generators(purpose)]

    one = numbers(learner, "a")
    assert one == numbers(learner, "a")
    assert one[1:] == numbers(other, "a")
    drawn = [*one, *numbers(learner, "b"), *numbers(learner, "a", 1)]
    assert len({tuple(values) for values in drawn}) == 6


def test_total_steps_count_over_tasks(data):
    trainer = new_trainer(data, "none", [{}])
    seen = []
    take = trainer.learner.optimizer.step
    trainer.learner.optimizer.step = lambda *args: (
        seen.append(trainer.learner.total_steps) or take(*args)
    )
    for _ in range(2):
        trainer.on_task_start()
        trainer.learn()
    assert seen == list(range(2 * SETTING.problem.steps))


@pytest.mark.parametrize("shape", ["row", "matrix"])
def test_reinitialized_parameters_have_new_values_and_no_optimizer_state(shape):
    learner = learner_of("mlp")
    learner.optimizer.step(learner.parameters.padded, torch.ones_like(learner.parameters.padded))
    before, width = learner.parameters.flat.detach().clone(), learner.parameters.flat.shape[1]
    where = torch.rand(3, width, generator=torch.Generator().manual_seed(0)) < 0.3
    where = where[0] if shape == "row" else where
    learner.reinitialize(where, torch.full_like(before, 7))
    every = where.expand_as(before)
    assert (learner.parameters.flat[every] == 7).all()
    assert torch.equal(learner.parameters.flat[~every], before[~every])
    for mean in learner.optimizer.means.values():
        assert not mean[:, :width][every].any()
        assert mean[:, :width][~every].all()
    assert (learner.optimizer.steps == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_shapes_equal_recorded_shapes_and_leave_the_network_unchanged(kind):
    learner = learner_of(kind)
    state = {name: value.clone() for name, value in learner.network.state_dict().items()}
    shapes = learner.hidden_shapes()
    inputs = torch.randn(5, *learner.image)
    with record_activations(learner.network, {}) as hidden:
        learner.network(inputs)
    assert {layer: (5, *shape) for layer, shape in shapes.items()} == {
        layer: tuple(values.shape) for layer, values in hidden.items()
    }
    assert_no_hooks(learner.network)
    assert all(
        torch.equal(value, state[name]) for name, value in learner.network.state_dict().items()
    )


def assert_no_hooks(network):
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )


EXPECTED = {
    "mlp": ["hidden_1", "hidden_2"],
    "mlp with batch norm": ["hidden_1", "hidden_2"],
    "cnn": ["conv_1", "conv_2", "hidden_1", "hidden_2"],
    "resnet18": [
        "conv_1",
        *(
            f"stage_{stage}.block_{block}.conv_{place}"
            for stage in range(1, 5)
            for block in (1, 2)
            for place in (1, 2)
        ),
    ],
    "vit": ["block_1.hidden_1", "block_2.hidden_1"],
}


class Masked(nn.Module):
    """An activation whose output is multiplied, and noted."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        self.seen = self.activation(x) * self.mask
        return self.seen


def outputs_of_run(learner, inputs, masks, run):
    """Compute the outputs and masked activations of one run with modules of our own.

    The activations are in the order of their calls.
    """
    setting, _ = next(value for value in KINDS.values() if value[0] is learner.setting)
    network = architecture.build(setting.network, learner.image, 3).double()
    order = []
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, activations.ACTIVATION_CLASSES):
                setattr(module, name, Masked(child))
                order.append(getattr(module, name))
    for activation, mask in zip(order, masks.values(), strict=True):
        activation.mask = mask[run]
    tensors = {name: tensor[run].detach() for name, tensor in learner.parameters.tensors.items()}
    return functional_call(network, tensors, (inputs[run],)), [
        activation.seen for activation in order
    ]


@pytest.mark.parametrize("way", ["bound", "forward"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_multiply_and_hidden_activations_are_recorded_after_masks(kind, way):
    learner = learner_of(kind)
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, *learner.image, generator=draw, dtype=torch.float64)
    masks = {
        layer: torch.rand(3, 5, *shape, generator=draw, dtype=torch.float64)
        for layer, shape in learner.hidden_shapes().items()
    }
    assert list(masks) == EXPECTED[kind]
    if way == "bound":
        outputs = learner.record_activations(inputs, masks)
        hidden = learner.hidden
    else:
        watch = Watch(masks)
        outputs = forward(learner.network.double(), learner.parameters.tensors, inputs, watch)
        hidden = watch.hidden
    assert list(hidden) == EXPECTED[kind]
    for run in range(3):
        expected, seen = outputs_of_run(learner, inputs, masks, run)
        torch.testing.assert_close(outputs[run], expected, rtol=1e-10, atol=1e-12)
        for found, values in zip(hidden.values(), seen, strict=True):
            units_last = values.movedim(1, -1) if values.ndim == 4 else values
            torch.testing.assert_close(
                found[run], units_last.flatten(0, -2), rtol=1e-10, atol=1e-12
            )
    assert_no_hooks(learner.network)
    with torch.no_grad():
        assert not torch.allclose(learner(inputs), outputs)  # without masks


@pytest.mark.parametrize("kind", KINDS)
def test_recording_does_not_change_outputs_and_gradients(kind):
    found = []
    for recording in (True, False):
        learner = learner_of(kind, dtype=torch.float32)
        inputs = torch.randn(3, 5, *learner.image, generator=torch.Generator().manual_seed(0))
        outputs = []

        def objective(learner=learner, inputs=inputs, outputs=outputs, recording=recording):
            outputs.append(learner.record_activations(inputs, {}) if recording else learner(inputs))
            return outputs[0].square().sum(dim=2), []

        gradient = learner.parameters.gradient(objective).clone()
        found.append((outputs[0].detach(), gradient))
    assert all(map(torch.equal, *found))


def test_hooks_are_removed_after_a_failure():
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(RuntimeError, match="mat1"), record_activations(network, {}):
        network(torch.zeros(1, 4))
    assert_no_hooks(network)


def test_vmapped_hidden_activations_equal_sequential_ones():
    learner = learner_of("cnn")
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 5, *learner.image, generator=draw, dtype=torch.float64)
    masks = {
        layer: torch.rand(3, 5, *shape, generator=draw, dtype=torch.float64)
        for layer, shape in learner.hidden_shapes().items()
    }
    network, tensors = learner.network.double(), learner.parameters.tensors
    one = Watch(masks, with_slopes=True)
    expected = forward(network, tensors, inputs, one)

    def run(tensors, inputs, masks):
        slopes = {}
        with ensemble.record_activations(network, masks, slopes) as hidden:
            return functional_call(network, tensors, (inputs,)), dict(hidden), slopes

    outputs, hidden, slopes = torch.vmap(run)(tensors, inputs, masks)
    torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-12)
    for recorded, of_watch in ((hidden, one.hidden), (slopes, one.slopes)):
        assert recorded.keys() == of_watch.keys()
        for layer, values in recorded.items():
            torch.testing.assert_close(
                ensemble.as_units(values), of_watch[layer], rtol=1e-11, atol=1e-12
            )


@pytest.mark.parametrize("initialization", ["he", "he_uniform", "xavier", "orthogonal", "pytorch"])
@pytest.mark.parametrize("kind", [*KINDS, "deep fourier"])
def test_deviations_equal_those_of_drawn_parameters(kind, initialization):
    setting, size = KINDS.get(
        kind, (changed(network={"activation": "fourier", "options": {"width": 20, "depth": 2}}), 4)
    )
    network = Network(
        setting.network.kind,
        setting.network.activation,
        initialization,
        options=setting.network.options,
    )
    module = architecture.build(network, (1, size, size), 3)
    drawn = [architecture.draw_initial(module, network, seed, 0) for seed in range(12)]
    for name, deviation in architecture.initial_stds(module, network).items():
        values = np.concatenate([tensors[name].numpy().ravel() for tensors in drawn])
        if deviation == 0:
            assert len(np.unique(values)) == 1
        else:
            assert abs(values.std() / deviation - 1) < 4 / math.sqrt(values.size), name
            assert abs(values.mean()) < 4 * deviation / math.sqrt(values.size), name
