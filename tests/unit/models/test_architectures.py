"""The law of the initial weights, the names of the layers, what each kind computes, and what a deep linear network is."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.functional import conv2d, linear, max_pool2d

from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.errors import StudyError
from plasticity.models import activations, architecture
from plasticity.models.architectures.vit import Patches
from plasticity.models.normalization import BatchNorm
from plasticity.rng import generator

SHAPE = (2, 2, 3)
KINDS = {  # a small network of each kind, and the images it sees
    "mlp": (Network("mlp", "tanh", options={"width": 5, "depth": 2}), SHAPE),
    "cnn": (Network("cnn", "tanh", options={"width": 6}), (2, 16, 21)),
    "resnet18": (Network("resnet18", "tanh", options={"width": 3}), (2, 9, 8)),
    "vit": (
        Network("vit", "tanh", options={"width": 6, "depth": 2, "heads": 2, "patch": 3}),
        (2, 6, 9),
    ),
    "mlp, layer": (
        Network("mlp", "crelu", options={"width": 5, "depth": 2, "norm": "layer"}),
        SHAPE,
    ),
    "mlp, batch": (
        Network("mlp", "fourier", options={"width": 5, "depth": 2, "norm": "batch"}),
        SHAPE,
    ),
    "cnn, layer": (Network("cnn", "fourier", options={"width": 6, "norm": "layer"}), (2, 16, 21)),
    "cnn, batch": (Network("cnn", "sin", options={"width": 6, "norm": "batch"}), (2, 16, 21)),
    "resnet18, layer": (
        Network("resnet18", "crelu", options={"width": 3, "norm": "layer"}),
        (2, 9, 8),
    ),
    "resnet18, none": (
        Network("resnet18", "gelu", options={"width": 3, "norm": "none"}),
        (2, 9, 8),
    ),
    "vit, fourier": (
        Network("vit", "fourier", options={"width": 6, "depth": 1, "heads": 3, "patch": 3}),
        (2, 6, 9),
    ),
}
GAINS = {  # squared
    "relu": 2,
    "leaky_relu": 2 / 1.0001,
    "tanh": 25 / 9,
    "identity": 1,
    "gelu": 2.35171,
    "sin": 2.31304,
    "crelu": 2,
    "fourier": 2,
}


@pytest.mark.parametrize(("activation", "gain"), GAINS.items())
def test_weights_are_normal_with_variance_gain_squared_over_fan_in_and_biases_zero(
    activation, gain
):
    network = Network("mlp", activation, options={"width": 128, "depth": 2})
    module = architecture.build(network, (4, 8, 8), 64)
    parameters = architecture.initial(module, network, seed=3)
    units = 128 * (1 + (activation in ("crelu", "fourier")))
    for layer, fan_in, squared in [
        ("hidden_1", 256, gain),
        ("hidden_2", units, gain),
        ("output", units, 1),
    ]:
        z = parameters[f"{layer}.weight"].flatten() * math.sqrt(fan_in / squared)
        count = len(z)
        assert abs(z.mean()) < 4 / math.sqrt(count)
        assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / count)
        assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / count)
        assert not parameters[f"{layer}.bias"].any()


def test_weights_keep_the_mean_square_of_a_signal_through_relu_layers():
    network = Network("mlp", "relu", options={"width": 400, "depth": 6})
    module = architecture.build(network, (1, 20, 20), 400).double()
    torch.manual_seed(0)
    inputs = torch.randn(200, 1, 20, 20).double()
    outputs = functional_call(module, architecture.initial(module, network, seed=0), (inputs,))
    assert outputs.square().mean().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("activation", sorted(GAINS.keys() - {"tanh"}))
def test_the_gain_is_one_over_the_root_mean_square_of_an_activation_of_normal_numbers(activation):
    z, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(100))
    squares = activations.KINDS[activation]()(z[:, None]).square().mean(dim=1)
    assert (squares @ weights / weights.sum()).item() * activations.KINDS[
        activation
    ].gain ** 2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("initialization", ["he", "orthogonal"])
@pytest.mark.parametrize("activation", sorted(GAINS.keys() - {"tanh"}))
def test_the_scale_of_a_signal_is_kept_through_ten_wide_layers_of_each_activation(
    activation, initialization
):
    network = Network("mlp", activation, initialization, options={"width": 400, "depth": 10})
    module = architecture.build(network, (1, 20, 20), 5).double()
    scales = []
    for level in range(1, 11):
        layer = module.get_submodule(f"hidden_{level}")
        layer.register_forward_hook(lambda _, a, z: scales.append(z.square().mean().item()))
    inputs = torch.randn(
        200, 1, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ) / math.sqrt(GAINS[activation])
    functional_call(module, architecture.initial(module, network, seed=0), (inputs,))
    assert len(scales) == 10
    assert all(0.5 < scale < 2 for scale in scales)


def test_layers_are_named_by_their_depth_and_shaped_by_the_config():
    module = architecture.build(Network("mlp", "tanh", options={"width": 5, "depth": 2}), SHAPE, 4)
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
    assert [name for name, _ in module.named_children()] == [
        "flatten",
        "hidden_1",
        "activation_1",
        "hidden_2",
        "activation_2",
        "output",
    ]


VALUES = {  # of −1, 0 and 2
    "relu": [0, 0, 2],
    "leaky_relu": [-0.01, 0, 2],
    "tanh": [math.tanh(-1), 0, math.tanh(2)],
    "identity": [-1, 0, 2],
    "gelu": [-0.158655, 0, 1.954500],
    "sin": [math.sin(-1), 0, math.sin(2)],
    "crelu": [0, 0, 2, 1, 0, 0],
    "fourier": [math.sin(-1), 0, math.sin(2), math.cos(-1), 1, math.cos(2)],
}


@pytest.mark.parametrize(("activation", "value"), VALUES.items())
def test_activations_are_what_they_are_called(activation, value):
    module = activations.KINDS[activation]()
    torch.testing.assert_close(
        module(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor(value, dtype=torch.float32)
    )
    assert activations.KINDS[activation].expansion == len(value) // 3
    assert isinstance(module, activations.MODULES)
    assert VALUES.keys() == activations.KINDS.keys() == GAINS.keys()


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_an_activation_that_doubles_puts_its_halves_along_the_units_or_the_channels(activation):
    x = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    channels = activations.KINDS[activation](-3)(x)
    assert channels.shape == (4, 6, 5, 2)
    torch.testing.assert_close(
        channels, activations.KINDS[activation]()(x.movedim(1, -1)).movedim(-1, 1)
    )
    assert torch.equal(torch.vmap(activations.KINDS[activation](-3))(x[None])[0], channels)


def test_a_draw_is_known_by_its_seed_and_task_and_by_nothing_else():
    network = Network("mlp", "relu", options={"width": 5, "depth": 2})

    def draw(seed, task):
        return architecture.initial(architecture.build(network, SHAPE, 4), network, seed, task)[
            "hidden_2.weight"
        ]

    first = draw(1, 0)
    torch.manual_seed(5)
    draws = [draw(seed, task) for seed in range(3) for task in range(3)]
    assert torch.equal(draws[3], first)
    assert len({tuple(weight.flatten().tolist()) for weight in draws}) == 9


def test_seed_and_draw_of_a_layer_do_not_depend_on_the_layers_after_it():
    shallow, deep = (
        Network("mlp", "relu", options={"width": 5, "depth": depth}) for depth in (1, 4)
    )
    weights = [
        architecture.initial(architecture.build(network, SHAPE, 4), network, 0)["hidden_1.weight"]
        for network in (shallow, deep)
    ]
    assert torch.equal(*weights)


def test_a_network_of_identities_is_linear_in_its_input_and_one_of_relus_is_not():
    def curvature_along_a_line(activation):
        network = Network("mlp", activation, options={"width": 7, "depth": 3})
        module = architecture.build(network, SHAPE, 4).double()
        torch.manual_seed(0)
        a, b = torch.randn(2, 10, *SHAPE).double()
        parameters = architecture.initial(module, network, 0)
        outputs = [functional_call(module, parameters, (x,)) for x in (a, b, (a + b) / 2)]
        return (outputs[0] + outputs[1] - 2 * outputs[2]).abs().max().item()

    assert curvature_along_a_line("identity") < 1e-12
    assert curvature_along_a_line("relu") > 1e-2


@pytest.fixture(params=KINDS)
def example(request):
    """A network's settings, the network in float64, and a function that draws two runs' batches of its images."""
    network, shape = KINDS[request.param]
    draw = torch.Generator().manual_seed(0)
    return (
        network,
        architecture.build(network, shape, 4).double(),
        lambda: torch.randn(2, 5, *shape, generator=draw, dtype=torch.float64),
    )


def count(kind, width, shape, classes):
    module = architecture.build(Network(kind, "relu", options={"width": width}), shape, classes)
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_kinds_have_as_many_parameters_as_is_known_of_them():
    assert count("resnet18", 64, (3, 32, 32), 10) == 11_173_962
    assert (
        count("cnn", 100, (3, 32, 32), 10)
        == (75 + 1) * 16 + (400 + 1) * 16 + (16 * 5 * 5 + 1) * 100 + 101 * 100 + 101 * 10
    )
    assert (
        count("cnn", 100, (1, 28, 28), 10)
        == (25 + 1) * 16 + (400 + 1) * 16 + (16 * 4 * 4 + 1) * 100 + 101 * 100 + 101 * 10
    )


@pytest.mark.parametrize("activation", ["relu", "fourier"])
@pytest.mark.parametrize(("kind", "norms"), [("cnn", 3), ("resnet18", 3), ("vit", 0)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 16, 24)])
def test_images_of_any_size_give_a_number_per_class(kind, norms, shape, activation):
    for norm in ("none", "layer", "batch")[:norms] or [None]:
        options = {"width": 4} | ({} if norm is None else {"norm": norm})
        module = architecture.build(Network(kind, activation, options=options), shape, 7)
        assert module(torch.randn(5, *shape)).shape == (5, 7)


NORMS = {
    "batch": partial(nn.BatchNorm2d, track_running_stats=False),
    "layer": partial(nn.GroupNorm, 1),
}


@pytest.mark.parametrize("norm", NORMS)
def test_resnet18_is_the_one_of_torchvision_with_a_stem_for_small_images(norm):
    reference = torchvision.models.resnet18(num_classes=10, norm_layer=NORMS[norm])
    reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for layer in reference.modules():
        if hasattr(layer, "relu"):
            layer.relu = nn.Tanh()
    module = architecture.build(
        Network("resnet18", "tanh", options={"width": 64, "norm": norm}), (3, 16, 16), 10
    )
    draw = torch.Generator().manual_seed(0)
    for mine, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        mine.data = torch.randn(theirs.shape, generator=draw, dtype=torch.float64) / math.sqrt(
            theirs[0].numel()
        )
        theirs.data = mine.data
    inputs = torch.randn(4, 3, 16, 16, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(module(inputs), reference(inputs), rtol=1e-10, atol=1e-10)


def test_the_cnn_convolves_without_padding_and_pools_each_activation():
    module = architecture.build(
        Network("cnn", "tanh", options={"width": 6}), (2, 17, 22), 4
    ).double()
    p = dict(module.named_parameters())

    def layer(function, name, x):
        return function(x, p[f"{name}.weight"], p[f"{name}.bias"])

    inputs = torch.randn(
        5, 2, 17, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x = max_pool2d(layer(conv2d, "conv_1", inputs).tanh(), 2)
    x = max_pool2d(layer(conv2d, "conv_2", x).tanh(), 2)
    x = layer(linear, "hidden_1", x.reshape(5, -1)).tanh()
    x = layer(linear, "hidden_2", x).tanh()
    torch.testing.assert_close(module(inputs), layer(linear, "output", x))


def test_layers_of_cnn_and_resnet18_are_named_by_what_they_are_and_where():
    cnn = architecture.build(Network("cnn", "relu", options={"width": 6}), (1, 16, 16), 4)
    names = "conv_1 activation_1 pool_1 conv_2 activation_2 pool_2 flatten hidden_1 activation_3 hidden_2 activation_4 output"
    assert [name for name, _ in cnn.named_children()] == names.split()
    resnet = architecture.build(Network("resnet18", "relu", options={"width": 6}), (1, 8, 8), 4)
    stages = [f"stage_{stage}" for stage in range(1, 5)]
    assert [name for name, _ in resnet.named_children()] == [
        "conv_1",
        "norm_1",
        "activation_1",
        *stages,
        "pool",
        "flatten",
        "output",
    ]
    block = [f"{layer}_{place}" for place in (1, 2) for layer in ("conv", "norm", "activation")]
    for stage in stages:
        shortcut = (
            ["shortcut", "shortcut.conv", "shortcut.norm"] if stage > "stage_1" else ["shortcut"]
        )
        layers = [f"block_1.{layer}" for layer in block + shortcut] + [
            f"block_2.{layer}" for layer in [*block, "shortcut"]
        ]
        assert sorted(name for name, _ in resnet.get_submodule(stage).named_modules()) == sorted(
            ["", "block_1", "block_2", *layers]
        )


def test_a_watcher_of_calls_finds_the_seventeen_activations_of_resnet18_each_after_its_norm():
    module = architecture.build(Network("resnet18", "relu", options={"width": 2}), (1, 8, 8), 3)
    called = []
    for name, layer in module.named_modules():
        if type(layer) in (BatchNorm, nn.ReLU):
            layer.register_forward_hook(lambda *_, name=name: called.append(name))
    module(torch.randn(4, 1, 8, 8))
    activations = [place for place, name in enumerate(called) if "norm" not in name]
    assert len(activations) == 17
    assert all(
        called[place - 1] == called[place].replace("activation", "norm") for place in activations
    )


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_images_too_small_for_the_cnn_are_refused_with_the_size_that_it_needs(size):
    sentence = rf"at least 16 × 16 pixels, and these have {size[0]} × {size[1]}: choose another network\.kind$"
    with pytest.raises(StudyError, match=sentence):
        architecture.build(Network("cnn", "relu", options={"width": 6}), (1, *size), 4)


def test_a_network_is_a_function_of_its_parameters_and_its_batch_alone(example):
    network, module, batches = example
    (inputs, others), parameters = batches(), architecture.initial(module, network, seed=0)
    first = functional_call(module.train(), parameters, (inputs,))
    functional_call(module, parameters, (7 * others + 3,))
    assert torch.equal(functional_call(module, parameters, (inputs,)), first)
    torch.testing.assert_close(
        functional_call(module.eval(), parameters, (inputs,)), first, rtol=1e-10, atol=1e-10
    )
    assert not list(module.buffers())


@pytest.mark.parametrize("training", [True, False])
def test_runs_computed_at_once_by_vmap_are_each_alone(example, training):
    network, module, batches = example
    module.train(training)
    inputs, runs = batches(), [architecture.initial(module, network, seed) for seed in range(2)]
    stacked = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
    together = torch.vmap(lambda parameters, x: functional_call(module, parameters, (x,)))(
        stacked, inputs
    )
    for outputs, parameters, x in zip(together, runs, inputs, strict=True):
        torch.testing.assert_close(
            outputs, functional_call(module, parameters, (x,)), rtol=1e-10, atol=1e-10
        )


def test_initial_parameters_are_drawn_in_the_order_of_the_parameters_with_nothing_drawn_for_constants(
    example,
):
    network, module, _ = example
    drawn, draw = architecture.initial(module, network, seed=2, task=3), generator(2, "initial", 3)
    assert [(name, value.shape) for name, value in drawn.items()] == [
        (name, p.shape) for name, p in module.named_parameters()
    ]
    for name, value in drawn.items():
        assert value.dtype == torch.float64
        if name == "positions.weight":
            expected = torch.from_numpy(draw.normal(0, 0.02, value.shape))
        elif "norm" in name or name.endswith("bias"):
            expected = torch.full(
                value.shape, float("norm" in name and name.endswith("weight")), dtype=torch.float64
            )
        else:
            gain = 1 if name == "output.weight" else math.sqrt(GAINS[network.activation])
            expected = torch.from_numpy(
                draw.normal(0, gain / math.sqrt(value[0].numel()), value.shape)
            )
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("kind", "fan_ins"),
    [
        (
            "cnn",
            {"conv_1": 2 * 25, "conv_2": 16 * 25, "hidden_1": 16, "hidden_2": 16, "output": 16},
        ),
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
    parameters = architecture.initial(architecture.build(network, (2, 16, 16), 40), network, seed=3)
    for layer, fan_in in fan_ins.items():
        z = parameters[f"{layer}.weight"].flatten() * math.sqrt(
            fan_in / (1 if layer == "output" else 2)
        )
        assert abs(z.mean()) < 4 / math.sqrt(len(z)), layer
        assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / len(z)), layer


def test_the_fan_in_of_a_grouped_convolution_is_what_one_output_sees():
    weight = architecture.initial(
        nn.Conv2d(8, 512, (3, 5), groups=4), Network("cnn", "relu", options={"width": 1}), seed=0
    )["weight"]
    assert abs(weight.square().mean() * (8 / 4 * 15) / 2 - 1) < 4 * math.sqrt(2 / weight.numel())


def test_a_layer_without_a_rule_is_refused_by_its_name_and_kind():
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.PReLU()))
    with pytest.raises(
        StudyError, match=r"does not know how to draw 1\.0\.weight, of a PReLU: add a rule"
    ):
        architecture.initial(
            module, Network("mlp", "relu", options={"width": 3, "depth": 1}), seed=0
        )


def test_xavier_weights_are_normal_with_twice_gain_squared_over_fan_in_plus_fan_out_and_biases_zero():
    for kind, shape, fans in [
        (
            "mlp",
            (4, 8, 8),
            {"hidden_1": (256 + 128, 2), "hidden_2": (128 + 128, 2), "output": (128 + 64, 1)},
        ),
        (
            "cnn",
            (4, 16, 16),
            {
                "conv_1": (4 * 25 + 16 * 25, 2),
                "conv_2": (2 * 16 * 25, 2),
                "hidden_2": (128 + 128, 2),
            },
        ),
    ]:
        options = {"width": 128} | ({"depth": 2} if kind == "mlp" else {})
        network = Network(kind, "relu", "xavier", options=options)
        parameters = architecture.initial(architecture.build(network, shape, 64), network, seed=3)
        for layer, (fans_in_and_out, squared) in fans.items():
            z = parameters[f"{layer}.weight"].flatten() * math.sqrt(fans_in_and_out / (2 * squared))
            assert abs(z.mean()) < 4 / math.sqrt(len(z)), layer
            assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / len(z)), layer
            assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / len(z)), layer
            assert not parameters[f"{layer}.bias"].any()


@pytest.mark.parametrize("kind", ["cnn", "vit", "mlp, layer", "resnet18"])
def test_orthogonal_weights_have_orthogonal_rows_or_columns_of_length_gain_and_biases_zero(kind):
    network, shape = KINDS[kind]
    network = replace(network, initialization="orthogonal")
    module = architecture.build(network, shape, 4)
    parameters = architecture.initial(module, network, seed=1)
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            W = parameters[f"{name}.weight"].flatten(1)
            gram = W @ W.T if len(W) <= W.shape[1] else W.T @ W
            squared = 1 if name == "output" else GAINS[network.activation]
            torch.testing.assert_close(
                gram, squared * torch.eye(len(gram)).double(), rtol=1e-5, atol=1e-9
            )
            assert layer.bias is None or not parameters[f"{name}.bias"].any()


def test_an_orthogonal_draw_is_uniform_among_rotations_and_reflections():
    network = Network("mlp", "identity", "orthogonal", options={"width": 2, "depth": 1})
    module = nn.Sequential(nn.Linear(2, 2, bias=False))
    drawn = torch.stack(
        [architecture.initial(module, network, seed)["0.weight"] for seed in range(400)]
    )
    assert abs((torch.linalg.det(drawn) > 0).double().mean() - 0.5) < 4 * 0.5 / 20
    for number in drawn.flatten(1).T:  # the cosine of a uniform angle
        assert abs(number.mean()) < 4 * math.sqrt(0.5 / 400)
        assert abs((number.abs() < math.sqrt(0.5)).double().mean() - 0.5) < 4 * 0.5 / 20


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_law_called_pytorch_is_that_which_torch_starts_layers_from(kind):
    network = Network(
        kind, "relu", "pytorch", options={"width": 128} | ({"depth": 2} if kind == "mlp" else {})
    )
    torch.manual_seed(0)
    module = architecture.build(network, (4, 16, 16), 64)
    parameters = architecture.initial(module, network, seed=3)
    for name, start in module.named_parameters():
        bound = 1 / math.sqrt(module.get_submodule(name.rpartition(".")[0]).weight[0].numel())
        drawn = parameters[name].flatten() / bound
        assert drawn.abs().max() <= 1
        for power in (1, 2, 4):
            spread = 4 / math.sqrt(len(drawn))
            assert abs(drawn.pow(power).mean() - (0 if power == 1 else 1 / (power + 1))) < spread, (
                name
            )
            assert (
                abs(drawn.pow(power).mean() - (start.flatten() / bound).pow(power).mean())
                < 1.5 * spread
            ), name


@pytest.mark.parametrize("initialization", ["xavier", "orthogonal", "pytorch"])
def test_whatever_the_law_norms_start_as_they_are_and_positions_near_zero_and_a_draw_is_known_by_seed_and_task(
    initialization,
):
    network = Network("vit", "relu", initialization, options={"width": 64, "depth": 1})
    module = architecture.build(network, (1, 32, 32), 4)
    parameters = architecture.initial(module, network, seed=1, task=2)
    assert (parameters["block_1.norm_1.weight"] == 1).all()
    assert not parameters["norm.bias"].any()
    assert abs(parameters["positions.weight"].std().item() / 0.02 - 1) < 4 / math.sqrt(2 * 64 * 64)
    again = architecture.initial(module, network, seed=1, task=2)
    assert all(torch.equal(value, again[name]) for name, value in parameters.items())
    for other in ((2, 2), (1, 1)):
        assert not torch.equal(
            architecture.initial(module, network, *other)["output.weight"],
            parameters["output.weight"],
        )


def size(network, shape, outputs=4):
    return sum(
        parameter.numel() for parameter in architecture.build(network, shape, outputs).parameters()
    )


MATCHED = {  # options beside the width, the images, which widths are allowed
    "mlp": ({"depth": 2, "norm": "layer"}, SHAPE, 1),
    "cnn": ({}, (1, 16, 16), 1),
    "resnet18": ({}, (2, 8, 8), 1),
    "vit": ({"depth": 1, "heads": 3, "patch": 2}, (1, 4, 4), 3),
}


@given(st.sampled_from(sorted(MATCHED)), st.sampled_from(["crelu", "fourier"]), st.integers(1, 6))
def test_a_matched_network_has_the_width_whose_parameters_are_nearest_in_number_to_those_with_relu(
    kind, activation, steps
):
    options, shape, step = MATCHED[kind]

    def of_width(width, activation=activation, matched=False):
        return size(
            Network(kind, activation, matched=matched, options=options | {"width": width}), shape
        )

    wanted = of_width(steps * step, "relu")
    nearest = min(
        (of_width(width) for width in range(step, steps * step + 1, step)),
        key=lambda found: abs(found - wanted),
    )
    assert of_width(steps * step, matched=True) == nearest


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_matched_changes_nothing_where_the_activation_does_not_double(activation):
    network = Network("mlp", activation, options={"width": 9, "depth": 2})
    assert str(architecture.build(network, SHAPE, 4)) == str(
        architecture.build(replace(network, matched=True), SHAPE, 4)
    )


def test_a_network_whose_width_is_left_out_is_matched_too():
    network = Network("cnn", "crelu", matched=True)
    assert size(network, (1, 28, 28)) < 1.01 * size(
        replace(network, activation="relu"), (1, 28, 28)
    )
    assert size(replace(network, matched=False), (1, 28, 28)) > 1.5 * size(network, (1, 28, 28))


def test_a_norm_is_before_each_activation_and_named_by_its_place():
    mlp = architecture.build(
        Network("mlp", "relu", options={"width": 5, "depth": 2, "norm": "layer"}), SHAPE, 4
    )
    names = "flatten hidden_1 norm_1 activation_1 hidden_2 norm_2 activation_2 output"
    assert [name for name, _ in mlp.named_children()] == names.split()
    cnn = architecture.build(Network("cnn", "relu", options={"norm": "layer"}), (1, 16, 16), 4)
    names = "conv_1 norm_1 activation_1 pool_1 conv_2 norm_2 activation_2 pool_2 flatten"
    names += " hidden_1 norm_3 activation_3 hidden_2 norm_4 activation_4 output"
    assert [name for name, _ in cnn.named_children()] == names.split()
    assert [type(layer) for name, layer in cnn.named_children() if "norm" in name] == [
        nn.GroupNorm
    ] * 2 + [nn.LayerNorm] * 2
    for norm in ("batch", "layer", "none"):
        resnet = architecture.build(
            Network("resnet18", "relu", options={"width": 2, "norm": norm}), (1, 8, 8), 4
        )
        assert {
            layer.bias is not None for layer in resnet.modules() if isinstance(layer, nn.Conv2d)
        } == {norm == "none"}
        assert any("norm" in name for name, _ in resnet.named_parameters()) == (norm != "none")


@pytest.mark.parametrize("kind", ["mlp", "cnn", "resnet18"])
def test_an_unknown_norm_is_refused_by_its_name(kind):
    options = {"width": 4, "norm": "group"} | ({"depth": 1} if kind == "mlp" else {})
    with pytest.raises(
        StudyError, match=r"^network\.norm is one of none, layer and batch, and not 'group'$"
    ):
        architecture.build(Network(kind, "relu", options=options), (1, 16, 16), 4)


def test_an_mlp_with_layer_norm_and_crelu_is_what_its_equations_say():
    module = architecture.build(
        Network("mlp", "crelu", options={"width": 5, "depth": 2, "norm": "layer"}), SHAPE, 4
    ).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    p, inputs = dict(module.named_parameters()), torch.randn(6, *SHAPE).double()
    x = inputs.flatten(1)
    for level in (1, 2):
        z = x @ p[f"hidden_{level}.weight"].T + p[f"hidden_{level}.bias"]
        z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        z = z * p[f"norm_{level}.weight"] + p[f"norm_{level}.bias"]
        x = torch.cat([z.clamp(min=0), (-z).clamp(min=0)], 1)
    torch.testing.assert_close(module(inputs), x @ p["output.weight"].T + p["output.bias"])


@pytest.fixture(params=[(7, 3), (4, 3, 2, 5)])
def batch(request):
    """A batch norm with drawn parameters, torch's with the same, and a batch for both."""
    torch.manual_seed(0)
    x = 3 * torch.randn(request.param).double() + 1
    mine, theirs = (
        BatchNorm(3).double(),
        (nn.BatchNorm1d if x.ndim == 2 else nn.BatchNorm2d)(3, track_running_stats=False).double(),
    )
    for parameter, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        other.data = nn.init.normal_(parameter).data.clone()
    return mine, theirs, x.requires_grad_()


def test_batch_norm_in_training_is_torchs_with_its_first_and_second_derivatives(batch):
    mine, theirs, x = batch

    def derivatives(layer):
        wanted = [x, *layer.parameters()]
        outputs = layer(x)
        first = torch.autograd.grad(outputs.sin().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(slope.square().sum() for slope in first), wanted)
        return [outputs, *first, *second]

    for found, expected in zip(derivatives(mine), derivatives(theirs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_batch_norm_in_eval_mode_puts_out_the_same_but_each_sample_has_a_gradient_of_its_own(batch):
    layer, _, x = batch
    expected = layer(x)
    outputs = layer.eval()(x)
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    dims = [0, *range(2, x.ndim)]
    scale = layer.weight.detach() / (x.detach().var(dims, correction=0) + 1e-5).sqrt()
    slope = torch.autograd.grad(outputs[1].sum(), x)[0]
    torch.testing.assert_close(slope[1], scale.view(-1, *[1] * (x.ndim - 2)).expand_as(slope[1]))
    assert not slope[[0, 2, 3]].any()
    assert torch.autograd.grad(expected[1].square().sum(), x)[0][[0, 2, 3]].any()


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_equal_numbers_is_its_bias(training):
    layer = BatchNorm(3).double().train(training)
    nn.init.normal_(layer.bias)
    for x in (torch.full((4, 3), 2.0).double(), torch.full((1, 3, 2, 2), 2.0).double()):
        outputs = layer(x).movedim(1, -1)
        torch.testing.assert_close(outputs, layer.bias.expand_as(outputs))
    if not training:
        torch.testing.assert_close(layer(torch.randn(1, 3).double()), layer.bias[None])


def transformer(module, width, heads, depth):
    """Torch's own encoder, with the weights of a vit."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, torch.tanh, batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(
        layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
    ).double()
    names = {
        "self_attn.in_proj_": "attention.query_key_value.",
        "self_attn.out_proj": "attention.projection",
    }
    names |= {"linear1": "hidden_1", "linear2": "hidden_2", "norm1": "norm_1", "norm2": "norm_2"}
    mine = dict(module.named_parameters())
    for name, parameter in encoder.named_parameters():
        for theirs, own in names.items():
            name = name.replace(theirs, own)
        if name.startswith("layers."):
            _, place, rest = name.split(".", 2)
            name = f"block_{int(place) + 1}.{rest}"
        parameter.data = mine[name].data
    return encoder


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_a_vit_is_torchs_transformer_on_patches_with_positions(heads):
    network = Network("vit", "tanh", options={"width": 6, "depth": 2, "heads": heads, "patch": 2})
    module = architecture.build(network, (3, 4, 6), 5).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 3, 4, 6).double()
    patches = nn.functional.unfold(x, 2, stride=2).mT
    tokens = module.embedding(patches) + module.positions.weight
    expected = module.output(transformer(module, 6, heads, 2)(tokens).mean(dim=1))
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-10)


def test_patches_are_cut_row_by_row_and_hold_each_channels_pixels_together():
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = Patches(2)(x)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            cut = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 3 * row + column], cut.flatten(1))


def test_a_vit_has_second_derivatives():
    network, shape = KINDS["vit"]
    module = architecture.build(network, shape, 2).double()
    parameters = {
        name: value.requires_grad_()
        for name, value in architecture.initial(module, network, seed=0).items()
    }
    name, x = (
        "block_1.attention.query_key_value.weight",
        torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).double(),
    )

    def of(weight):
        return functional_call(module, parameters | {name: weight}, (x,)).square().sum()

    assert torch.autograd.gradgradcheck(of, (parameters[name],), atol=1e-4)


def test_a_vit_refuses_images_that_its_patches_do_not_tile_and_widths_that_its_heads_cannot_share():
    with pytest.raises(
        StudyError,
        match=r"patches of 4 × 4 pixels, and these have 8 × 10: choose a network\.patch that divides both$",
    ):
        architecture.build(Network("vit", "relu"), (1, 8, 10), 4)
    with pytest.raises(
        StudyError,
        match=r"^network\.width is shared by the heads of a vit, and 10 is no multiple of 4: change either$",
    ):
        architecture.build(Network("vit", "relu", options={"width": 10}), (1, 8, 8), 4)


def test_resnet18_with_an_activation_that_doubles_has_a_convolution_in_the_shortcut_of_every_block():
    module = architecture.build(Network("resnet18", "crelu", options={"width": 3}), (1, 8, 8), 4)
    shortcuts = {
        name: layer for name, layer in module.named_modules() if name.endswith("shortcut.conv")
    }
    assert len(shortcuts) == 8
    assert [layer.in_channels // layer.out_channels for layer in shortcuts.values()] == [2, 2] + [
        1,
        2,
    ] * 3
    assert [layer.stride[0] for layer in shortcuts.values()] == [1, 1] + [2, 1] * 3


@pytest.mark.parametrize("few", [{"batch": 1}, {"test_samples": 1}])
def test_batch_norm_of_one_image_is_refused_with_what_to_do(data, few):
    problem = Problem("tiny", "shuffle_labels", **({"samples": 20, "batch": 5, "epochs": 1} | few))
    network = Network("mlp", "relu", options={"width": 4, "depth": 1, "norm": "batch"})
    setting = Setting(problem, network, Optimizer("sgd", options={"lr": 0.1}))
    with pytest.raises(
        StudyError,
        match=r"batch norm has no statistics of one image: raise problem\.batch or problem\.test_samples",
    ):
        architecture.fitting(setting, data)
    without = replace(setting, network=replace(network, options={"width": 4, "depth": 1}))
    assert architecture.fitting(without, data)
