"""The law of the initial weights, the names of the layers, what each kind computes, and what a deep linear network is."""

import math
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.nn.functional import conv2d, linear, max_pool2d

from plasticity import networks
from plasticity.errors import StudyError
from plasticity.randomness import generator
from plasticity.settings import Network

SHAPE = (2, 2, 3)
KINDS = {  # a small network of each kind, and the images it sees
    "mlp": (Network("mlp", "tanh", options={"width": 5, "depth": 2}), SHAPE),
    "cnn": (Network("cnn", "tanh", options={"width": 6}), (2, 16, 21)),
    "resnet18": (Network("resnet18", "tanh", options={"width": 3}), (2, 9, 8)),
}
GAINS = {"relu": 2, "leaky_relu": 2 / 1.0001, "tanh": 25 / 9, "identity": 1}  # squared


@pytest.mark.parametrize(("activation", "gain"), GAINS.items())
def test_weights_are_normal_with_variance_gain_squared_over_fan_in_and_biases_zero(activation, gain):
    network = Network("mlp", activation, options={"width": 128, "depth": 2})
    module = networks.build(network, (4, 8, 8), 64)
    parameters = networks.initial(module, network, seed=3)
    for layer, fan_in, squared in [("hidden_1", 256, gain), ("hidden_2", 128, gain), ("output", 128, 1)]:
        z = parameters[f"{layer}.weight"].flatten() * math.sqrt(fan_in / squared)
        count = len(z)
        assert abs(z.mean()) < 4 / math.sqrt(count)
        assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / count)
        assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
        assert not parameters[f"{layer}.bias"].any()


def test_weights_keep_the_mean_square_of_a_signal_through_relu_layers():
    network = Network("mlp", "relu", options={"width": 400, "depth": 6})
    module = networks.build(network, (1, 20, 20), 400).double()
    torch.manual_seed(0)
    inputs = torch.randn(200, 1, 20, 20).double()
    outputs = functional_call(module, networks.initial(module, network, seed=0), (inputs,))
    assert outputs.square().mean().item() == pytest.approx(1, rel=0.2)


def test_layers_are_named_by_their_depth_and_shaped_by_the_config():
    module = networks.build(Network("mlp", "tanh", options={"width": 5, "depth": 2}), SHAPE, 4)
    assert {name: tuple(parameter.shape) for name, parameter in module.named_parameters()} == {
        "hidden_1.weight": (5, 12),
        "hidden_1.bias": (5,),
        "hidden_2.weight": (5, 5),
        "hidden_2.bias": (5,),
        "output.weight": (4, 5),
        "output.bias": (4,),
    }
    kinds = [nn.Flatten, nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [type(layer) for layer in module] == kinds
    assert [name for name, _ in module.named_children()] == ["flatten", "hidden_1", "activation_1", "hidden_2", "activation_2", "output"]


@pytest.mark.parametrize(
    ("activation", "value"),
    [("relu", [0, 0, 2]), ("leaky_relu", [-0.01, 0, 2]), ("tanh", [math.tanh(-1), 0, math.tanh(2)]), ("identity", [-1, 0, 2])],
)
def test_activations_are_what_they_are_called(activation, value):
    module = networks.ACTIVATIONS[activation]()
    torch.testing.assert_close(module(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor(value, dtype=torch.float32))


def test_a_draw_is_known_by_its_seed_and_task_and_by_nothing_else():
    network = Network("mlp", "relu", options={"width": 5, "depth": 2})

    def draw(seed, task):
        return networks.initial(networks.build(network, SHAPE, 4), network, seed, task)["hidden_2.weight"]

    first = draw(1, 0)
    torch.manual_seed(5)
    draws = [draw(seed, task) for seed in range(3) for task in range(3)]
    assert torch.equal(draws[3], first)
    assert len({tuple(weight.flatten().tolist()) for weight in draws}) == 9


def test_seed_and_draw_of_a_layer_do_not_depend_on_the_layers_after_it():
    shallow, deep = (Network("mlp", "relu", options={"width": 5, "depth": depth}) for depth in (1, 4))
    weights = [networks.initial(networks.build(network, SHAPE, 4), network, 0)["hidden_1.weight"] for network in (shallow, deep)]
    assert torch.equal(*weights)


def test_a_network_of_identities_is_linear_in_its_input_and_one_of_relus_is_not():
    def curvature_along_a_line(activation):
        network = Network("mlp", activation, options={"width": 7, "depth": 3})
        module = networks.build(network, SHAPE, 4).double()
        torch.manual_seed(0)
        a, b = torch.randn(2, 10, *SHAPE).double()
        parameters = networks.initial(module, network, 0)
        outputs = [functional_call(module, parameters, (x,)) for x in (a, b, (a + b) / 2)]
        return (outputs[0] + outputs[1] - 2 * outputs[2]).abs().max().item()

    assert curvature_along_a_line("identity") < 1e-12
    assert curvature_along_a_line("relu") > 1e-2


@pytest.fixture(params=KINDS)
def example(request):
    """A network's settings, the network in float64, and a function that draws two members' batches of its images."""
    network, shape = KINDS[request.param]
    draw = torch.Generator().manual_seed(0)
    return network, networks.build(network, shape, 4).double(), lambda: torch.randn(2, 5, *shape, generator=draw, dtype=torch.float64)


def count(kind, width, shape, classes):
    module = networks.build(Network(kind, "relu", options={"width": width}), shape, classes)
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_kinds_have_as_many_parameters_as_is_known_of_them():
    assert count("resnet18", 64, (3, 32, 32), 10) == 11_173_962
    assert count("cnn", 100, (3, 32, 32), 10) == (75 + 1) * 16 + (400 + 1) * 16 + (16 * 5 * 5 + 1) * 100 + 101 * 100 + 101 * 10
    assert count("cnn", 100, (1, 28, 28), 10) == (25 + 1) * 16 + (400 + 1) * 16 + (16 * 4 * 4 + 1) * 100 + 101 * 100 + 101 * 10


@pytest.mark.parametrize("kind", ["cnn", "resnet18"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 16, 23)])
def test_images_of_any_size_give_a_number_per_class(kind, shape):
    module = networks.build(Network(kind, "relu", options={"width": 4}), shape, 7)
    assert module(torch.randn(5, *shape)).shape == (5, 7)


def test_depth_plays_no_part_in_cnn_and_resnet18():
    for kind in ("cnn", "resnet18"):
        shallow, deep = (networks.build(Network(kind, "relu", options={"width": 4}), (1, 16, 16), 3) for depth in (1, 5))
        assert str(shallow) == str(deep)


def test_resnet18_is_the_one_of_torchvision_with_a_stem_for_small_images():
    reference = torchvision.models.resnet18(num_classes=10, norm_layer=partial(nn.BatchNorm2d, track_running_stats=False))
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for layer in reference.modules():
        if hasattr(layer, "relu"):
            layer.relu = nn.Tanh()
    module = networks.build(Network("resnet18", "tanh", options={"width": 64}), (3, 16, 16), 10)
    draw = torch.Generator().manual_seed(0)
    for mine, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        mine.data = torch.randn(theirs.shape, generator=draw, dtype=torch.float64) / math.sqrt(theirs[0].numel())
        theirs.data = mine.data
    inputs = torch.randn(4, 3, 16, 16, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(module(inputs), reference(inputs), rtol=1e-10, atol=1e-10)


def test_the_cnn_convolves_without_padding_and_pools_each_activation():
    module = networks.build(Network("cnn", "tanh", options={"width": 6}), (2, 17, 22), 4).double()
    p = dict(module.named_parameters())

    def layer(function, name, x):
        return function(x, p[f"{name}.weight"], p[f"{name}.bias"])

    inputs = torch.randn(5, 2, 17, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = max_pool2d(layer(conv2d, "conv_1", inputs).tanh(), 2)
    x = max_pool2d(layer(conv2d, "conv_2", x).tanh(), 2)
    x = layer(linear, "hidden_1", x.reshape(5, -1)).tanh()
    x = layer(linear, "hidden_2", x).tanh()
    torch.testing.assert_close(module(inputs), layer(linear, "output", x))


def test_layers_of_cnn_and_resnet18_are_named_by_what_they_are_and_where():
    cnn = networks.build(Network("cnn", "relu", options={"width": 6}), (1, 16, 16), 4)
    names = "conv_1 activation_1 pool_1 conv_2 activation_2 pool_2 flatten hidden_1 activation_3 hidden_2 activation_4 output"
    assert [name for name, _ in cnn.named_children()] == names.split()
    resnet = networks.build(Network("resnet18", "relu", options={"width": 6}), (1, 8, 8), 4)
    stages = [f"stage_{stage}" for stage in range(1, 5)]
    assert [name for name, _ in resnet.named_children()] == ["conv_1", "norm_1", "activation_1", *stages, "pool", "flatten", "output"]
    block = [f"{layer}_{place}" for place in (1, 2) for layer in ("conv", "norm", "activation")]
    for stage in stages:
        shortcut = ["shortcut", "shortcut.conv", "shortcut.norm"] if stage > "stage_1" else ["shortcut"]
        layers = [f"block_1.{layer}" for layer in block + shortcut] + [f"block_2.{layer}" for layer in [*block, "shortcut"]]
        assert sorted(name for name, _ in resnet.get_submodule(stage).named_modules()) == sorted(["", "block_1", "block_2", *layers])


def test_a_watcher_of_calls_finds_the_seventeen_activations_of_resnet18_each_after_its_norm():
    module = networks.build(Network("resnet18", "relu", options={"width": 2}), (1, 8, 8), 3)
    called = []
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity)):
            layer.register_forward_hook(lambda *_, name=name: called.append(name))
    module(torch.randn(4, 1, 8, 8))
    activations = [place for place, name in enumerate(called) if "norm" not in name]
    assert len(activations) == 17
    assert all(called[place - 1] == called[place].replace("activation", "norm") for place in activations)


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_images_too_small_for_the_cnn_are_refused_with_the_size_that_it_needs(size):
    sentence = rf"at least 16 × 16 pixels, and these have {size[0]} × {size[1]}: choose another network\.kind$"
    with pytest.raises(StudyError, match=sentence):
        networks.build(Network("cnn", "relu", options={"width": 6}), (1, *size), 4)


def test_a_network_is_a_function_of_its_parameters_and_its_batch_alone(example):
    network, module, batches = example
    (inputs, others), parameters = batches(), networks.initial(module, network, seed=0)
    first = functional_call(module.train(), parameters, (inputs,))
    functional_call(module, parameters, (7 * others + 3,))
    assert torch.equal(functional_call(module, parameters, (inputs,)), first)
    assert torch.equal(functional_call(module.eval(), parameters, (inputs,)), first)
    assert not list(module.buffers())


def test_members_computed_at_once_by_vmap_are_each_alone(example):
    network, module, batches = example
    inputs, members = batches(), [networks.initial(module, network, seed) for seed in range(2)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in members[0]}
    together = torch.vmap(lambda parameters, x: functional_call(module, parameters, (x,)))(stacked, inputs)
    for outputs, parameters, x in zip(together, members, inputs, strict=True):
        torch.testing.assert_close(outputs, functional_call(module, parameters, (x,)), rtol=1e-10, atol=1e-10)


def test_initial_parameters_are_drawn_in_the_order_of_the_parameters_with_nothing_drawn_for_constants(example):
    network, module, _ = example
    drawn, draw = networks.initial(module, network, seed=2, task=3), generator(2, "initial", 3)
    assert [(name, value.shape) for name, value in drawn.items()] == [(name, p.shape) for name, p in module.named_parameters()]
    for name, value in drawn.items():
        assert value.dtype == torch.float64
        if "norm" in name or name.endswith("bias"):
            expected = torch.full(value.shape, float("norm" in name and name.endswith("weight")), dtype=torch.float64)
        else:
            gain = 1 if name == "output.weight" else 5 / 3
            expected = torch.from_numpy(draw.normal(0, gain / math.sqrt(value[0].numel()), value.shape))
        assert torch.equal(value, expected), name


@pytest.mark.parametrize(
    ("kind", "fan_ins"),
    [
        ("cnn", {"conv_1": 2 * 25, "conv_2": 16 * 25, "hidden_1": 16, "hidden_2": 16, "output": 16}),
        (
            "resnet18",
            {
                "conv_1": 2 * 9,
                "stage_1.block_1.conv_1": 16 * 9,
                "stage_2.block_1.conv_1": 16 * 9,
                "stage_2.block_1.shortcut.conv": 16,
                "stage_4.block_2.conv_2": 128 * 9,
                "output": 128,
            },
        ),
    ],
)
def test_the_variance_of_a_layers_weights_is_gain_squared_over_fan_in(kind, fan_ins):
    network = Network(kind, "relu", options={"width": 16})
    parameters = networks.initial(networks.build(network, (2, 16, 16), 40), network, seed=3)
    for layer, fan_in in fan_ins.items():
        z = parameters[f"{layer}.weight"].flatten() * math.sqrt(fan_in / (1 if layer == "output" else 2))
        assert abs(z.mean()) < 4 / math.sqrt(len(z)), layer
        assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / len(z)), layer


def test_the_fan_in_of_a_grouped_convolution_is_what_one_output_sees():
    weight = networks.initial(nn.Conv2d(8, 512, (3, 5), groups=4), Network("cnn", "relu", options={"width": 1}), seed=0)["weight"]
    assert abs(weight.square().mean() * (8 / 4 * 15) / 2 - 1) < 4 * math.sqrt(2 / weight.numel())


def test_a_layer_without_a_rule_is_refused_by_its_name_and_kind():
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.LayerNorm(3)))
    with pytest.raises(StudyError, match=r"does not know how to draw 1\.0\.weight, of a LayerNorm: add a rule"):
        networks.initial(module, Network("mlp", "relu", options={"width": 3, "depth": 1}), seed=0)
