"""Initial distributions, names of layers, and outputs of all architectures and activations."""

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
CNN_SHAPE, RESNET_SHAPE, VIT_SHAPE = (2, 16, 21), (2, 9, 8), (2, 6, 9)


def mlp(activation, initialization="he", matched=False, **options):
    """Return the config of a fully connected network."""
    return Network("mlp", activation, initialization, matched=matched, options=options)


EXAMPLES = {  # a small network of each kind, and the shape of its images
    "mlp": (mlp("tanh", width=5, depth=2), SHAPE),
    "cnn": (Network("cnn", "tanh", options={"width": 6}), CNN_SHAPE),
    "resnet18": (Network("resnet18", "tanh", options={"width": 3}), RESNET_SHAPE),
    "vit": (
        Network("vit", "tanh", options={"width": 6, "depth": 2, "heads": 2, "patch": 3}),
        VIT_SHAPE,
    ),
    "mlp, layer": (mlp("crelu", width=5, depth=2, norm="layer"), SHAPE),
    "mlp, batch": (mlp("fourier", width=5, depth=2, norm="batch"), SHAPE),
    "cnn, layer": (Network("cnn", "fourier", options={"width": 6, "norm": "layer"}), CNN_SHAPE),
    "cnn, batch": (Network("cnn", "sin", options={"width": 6, "norm": "batch"}), CNN_SHAPE),
    "resnet18, layer": (
        Network("resnet18", "crelu", options={"width": 3, "norm": "layer"}),
        RESNET_SHAPE,
    ),
    "resnet18, none": (
        Network("resnet18", "gelu", options={"width": 3, "norm": "none"}),
        RESNET_SHAPE,
    ),
    "vit, fourier": (
        Network("vit", "fourier", options={"width": 6, "depth": 1, "heads": 3, "patch": 3}),
        VIT_SHAPE,
    ),
}
SQUARED_GAINS = {
    "relu": 2,
    "leaky_relu": 2 / 1.0001,
    "tanh": 25 / 9,
    "identity": 1,
    "gelu": 2.35171,
    "sin": 2.31304,
    "crelu": 2,
    "fourier": 2,
}
EXACT_GAINS = sorted(SQUARED_GAINS.keys() - {"tanh"})  # that of tanh is a recommendation


def draw_tensor(*shape, seed=0):
    """Draw standard normal numbers in float64."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def draw_parameters(network, shape, outputs, seed=0, task=0):
    """Build a network and draw its initial parameters."""
    module = architecture.build(network, shape, outputs)
    return architecture.draw_initial(module, network, seed, task)


def count_parameters(network, shape, outputs=4):
    module = architecture.build(network, shape, outputs)
    return sum(parameter.numel() for parameter in module.parameters())


def child_names(module):
    return [name for name, _ in module.named_children()]


def assert_standard_normal(z, name):
    """Assert that mean, variance and fourth power are within four standard errors of a normal's."""
    count = z.numel()
    assert abs(z.mean()) < 4 / math.sqrt(count), name
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / count), name
    assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / count), name


# Initial parameters


@pytest.mark.parametrize(("activation", "squared_gain"), SQUARED_GAINS.items())
def test_he_weights_are_normal_with_variance_gain_squared_over_fan_in_and_biases_zero(
    activation, squared_gain
):
    parameters = draw_parameters(mlp(activation, width=128, depth=2), (4, 8, 8), 64, seed=3)
    fan_in = 256 if activation in ("crelu", "fourier") else 128
    layers = {
        "hidden_1": (256, squared_gain),
        "hidden_2": (fan_in, squared_gain),
        "output": (fan_in, 1),
    }
    for layer, (fan_in, squared) in layers.items():
        assert_standard_normal(parameters[f"{layer}.weight"] * math.sqrt(fan_in / squared), layer)
        assert not parameters[f"{layer}.bias"].any()


def test_relu_layers_preserve_the_mean_square_of_a_signal():
    network = mlp("relu", width=400, depth=6)
    module = architecture.build(network, (1, 20, 20), 400).double()
    torch.manual_seed(0)
    inputs = torch.randn(200, 1, 20, 20).double()
    outputs = functional_call(module, architecture.draw_initial(module, network, seed=0), (inputs,))
    assert outputs.square().mean().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("activation", EXACT_GAINS)
def test_gain_is_one_over_root_mean_square_of_activations_of_normal_numbers(activation):
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    z, weights = torch.from_numpy(nodes), torch.from_numpy(weights)
    squares = activations.ACTIVATIONS[activation]()(z[:, None]).square().mean(dim=1)
    mean_square = (squares @ weights / weights.sum()).item()
    gain = activations.ACTIVATIONS[activation].gain
    assert mean_square * gain**2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("initialization", ["he", "orthogonal"])
@pytest.mark.parametrize("activation", EXACT_GAINS)
def test_ten_wide_layers_preserve_the_scale_of_a_signal(activation, initialization):
    network = mlp(activation, initialization, width=400, depth=10)
    module = architecture.build(network, (1, 20, 20), 5).double()
    mean_squares = []

    def record(layer, inputs, outputs):
        mean_squares.append(outputs.square().mean().item())

    for level in range(1, 11):
        module.get_submodule(f"hidden_{level}").register_forward_hook(record)
    inputs = draw_tensor(200, 1, 20, 20) / math.sqrt(SQUARED_GAINS[activation])
    functional_call(module, architecture.draw_initial(module, network, seed=0), (inputs,))
    assert len(mean_squares) == 10
    assert all(0.5 < mean_square < 2 for mean_square in mean_squares)


def test_initial_parameters_depend_only_on_seed_and_task():
    network = mlp("relu", width=5, depth=2)

    def draw(seed, task):
        return draw_parameters(network, SHAPE, 4, seed, task)["hidden_2.weight"]

    first = draw(1, 0)
    torch.manual_seed(5)
    weights = [draw(seed, task) for seed in range(3) for task in range(3)]
    assert torch.equal(weights[3], first)
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 9


def test_first_layer_does_not_depend_on_later_layers():
    shallow, deep = mlp("relu", width=5, depth=1), mlp("relu", width=5, depth=4)
    weight_of_shallow = draw_parameters(shallow, SHAPE, 4)["hidden_1.weight"]
    weight_of_deep = draw_parameters(deep, SHAPE, 4)["hidden_1.weight"]
    assert torch.equal(weight_of_shallow, weight_of_deep)


def expected_he_parameter(draw, name, shape, squared_gain):
    """Draw one parameter as he initialization does, from its name."""
    if name == "positions.weight":
        return draw.normal(0, 0.02, shape)
    if "norm" in name:
        return np.full(shape, float(name.endswith("weight")))
    if name.endswith("bias"):
        return np.zeros(shape)
    gain = 1 if name == "output.weight" else math.sqrt(squared_gain)
    fan_in = math.prod(shape[1:])
    return draw.normal(0, gain / math.sqrt(fan_in), shape)


@pytest.mark.parametrize("example", EXAMPLES)
def test_parameters_are_drawn_in_their_order_and_constants_draw_nothing(example):
    network, shape = EXAMPLES[example]
    module = architecture.build(network, shape, 4).double()
    parameters = architecture.draw_initial(module, network, seed=2, task=3)
    draw = generator(2, "initial", 3)
    shapes = {name: value.shape for name, value in parameters.items()}
    expected_shapes = {name: value.shape for name, value in module.named_parameters()}
    assert list(shapes.items()) == list(expected_shapes.items())
    for name, value in parameters.items():
        assert value.dtype == torch.float64
        squared_gain = SQUARED_GAINS[network.activation]
        expected = expected_he_parameter(draw, name, value.shape, squared_gain)
        torch.testing.assert_close(value, torch.from_numpy(expected), rtol=1e-5, atol=0)


FAN_INS = {
    "cnn": {"conv_1": 2 * 25, "conv_2": 16 * 25, "hidden_1": 16, "hidden_2": 16, "output": 16},
    "resnet18": {
        "conv_1": 2 * 9,
        "stage_1.block_1.conv_1": 16 * 9,
        "stage_2.block_1.conv_1": 16 * 9,
        "stage_2.block_1.shortcut.conv": 16,
        "stage_4.block_2.conv_2": 128 * 9,
        "output": 128,
    },
}


@pytest.mark.parametrize(("kind", "fan_ins"), FAN_INS.items())
def test_variance_of_convolution_weights_is_gain_squared_over_fan_in(kind, fan_ins):
    network = Network(kind, "relu", options={"width": 16})
    parameters = draw_parameters(network, (2, 16, 16), 40, seed=3)
    for layer, fan_in in fan_ins.items():
        squared_gain = 1 if layer == "output" else 2
        z = parameters[f"{layer}.weight"].flatten() * math.sqrt(fan_in / squared_gain)
        assert abs(z.mean()) < 4 / math.sqrt(len(z)), layer
        assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / len(z)), layer


def test_fan_in_of_a_grouped_convolution_is_the_number_of_inputs_of_one_output():
    convolution = nn.Conv2d(8, 512, (3, 5), groups=4)
    network = Network("cnn", "relu", options={"width": 1})
    weight = architecture.draw_initial(convolution, network, seed=0)["weight"]
    fan_in = 8 / 4 * 15
    assert abs(weight.square().mean() * fan_in / 2 - 1) < 4 * math.sqrt(2 / weight.numel())


def test_layer_without_initial_distribution_is_refused_by_name_and_kind():
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.PReLU()))
    message = r"no initial distribution for 1\.0\.weight, a parameter of a PReLU\. Add one"
    with pytest.raises(StudyError, match=message):
        architecture.draw_initial(module, mlp("relu", width=3, depth=1), seed=0)


XAVIER = {  # fan-in + fan-out and squared gain, by layer
    "mlp": (
        mlp("relu", "xavier", width=128, depth=2),
        (4, 8, 8),
        {"hidden_1": (256 + 128, 2), "hidden_2": (128 + 128, 2), "output": (128 + 64, 1)},
    ),
    "cnn": (
        Network("cnn", "relu", "xavier", options={"width": 128}),
        (4, 16, 16),
        {
            "conv_1": (4 * 25 + 16 * 25, 2),
            "conv_2": (2 * 16 * 25, 2),
            "hidden_2": (128 + 128, 2),
        },
    ),
}


@pytest.mark.parametrize(("network", "shape", "fans_by_layer"), XAVIER.values(), ids=XAVIER)
def test_xavier_weights_are_normal_with_the_published_variance_and_biases_zero(
    network, shape, fans_by_layer
):
    parameters = draw_parameters(network, shape, 64, seed=3)
    for layer, (fans, squared_gain) in fans_by_layer.items():
        weight = parameters[f"{layer}.weight"]
        assert_standard_normal(weight * math.sqrt(fans / (2 * squared_gain)), layer)
        assert not parameters[f"{layer}.bias"].any()


@pytest.mark.parametrize("example", ["cnn", "vit", "mlp, layer", "resnet18"])
def test_orthogonal_weights_have_orthogonal_rows_or_columns_of_length_gain(example):
    network, shape = EXAMPLES[example]
    network = replace(network, initialization="orthogonal")
    module = architecture.build(network, shape, 4)
    parameters = architecture.draw_initial(module, network, seed=1)
    for name, layer in module.named_modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        W = parameters[f"{name}.weight"].flatten(1)
        gram = W @ W.T if len(W) <= W.shape[1] else W.T @ W
        squared_gain = 1 if name == "output" else SQUARED_GAINS[network.activation]
        expected = squared_gain * torch.eye(len(gram)).double()
        torch.testing.assert_close(gram, expected, rtol=1e-5, atol=1e-9)
        assert layer.bias is None or not parameters[f"{name}.bias"].any()


def test_orthogonal_weights_are_uniform_among_rotations_and_reflections():
    network = mlp("identity", "orthogonal", width=2, depth=1)
    module = nn.Sequential(nn.Linear(2, 2, bias=False))
    seeds = range(400)
    matrices = [architecture.draw_initial(module, network, seed)["0.weight"] for seed in seeds]
    weights = torch.stack(matrices)
    rotations = (torch.linalg.det(weights) > 0).double().mean()
    assert abs(rotations - 0.5) < 4 * 0.5 / 20
    for element in weights.flatten(1).T:  # the cosine of a uniform angle
        small = (element.abs() < math.sqrt(0.5)).double().mean()
        assert abs(element.mean()) < 4 * math.sqrt(0.5 / 400)
        assert abs(small - 0.5) < 4 * 0.5 / 20


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_pytorch_initialization_has_the_distribution_of_torchs_default(kind):
    options = {"width": 128, "depth": 2} if kind == "mlp" else {"width": 128}
    network = Network(kind, "relu", "pytorch", options=options)
    torch.manual_seed(0)
    module = architecture.build(network, (4, 16, 16), 64)
    parameters = architecture.draw_initial(module, network, seed=3)
    for name, default in module.named_parameters():
        layer = module.get_submodule(name.rpartition(".")[0])
        bound = 1 / math.sqrt(layer.weight[0].numel())
        drawn = parameters[name].flatten() / bound
        default = default.flatten() / bound
        assert drawn.abs().max() <= 1
        tolerance = 4 / math.sqrt(len(drawn))
        for power in (1, 2, 4):
            expected = 0 if power == 1 else 1 / (power + 1)
            mean = drawn.pow(power).mean()
            assert abs(mean - expected) < tolerance, name
            assert abs(mean - default.pow(power).mean()) < 1.5 * tolerance, name


INITIALIZATIONS = ["he_uniform", "xavier", "orthogonal", "pytorch"]


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_norms_and_positions_start_alike_under_all_initializations(initialization):
    network = Network("vit", "relu", initialization, options={"width": 64, "depth": 1})
    parameters = draw_parameters(network, (1, 32, 32), 4, seed=1, task=2)
    assert (parameters["block_1.norm_1.weight"] == 1).all()
    assert not parameters["norm.bias"].any()
    std = parameters["positions.weight"].std().item()
    assert abs(std / 0.02 - 1) < 4 / math.sqrt(2 * 64 * 64)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_draws_of_all_initializations_depend_only_on_seed_and_task(initialization):
    network = Network("vit", "relu", initialization, options={"width": 64, "depth": 1})
    module = architecture.build(network, (1, 32, 32), 4)
    parameters = architecture.draw_initial(module, network, seed=1, task=2)
    again = architecture.draw_initial(module, network, seed=1, task=2)
    assert all(torch.equal(value, again[name]) for name, value in parameters.items())
    for seed, task in ((2, 2), (1, 1)):
        other = architecture.draw_initial(module, network, seed, task)
        assert not torch.equal(other["output.weight"], parameters["output.weight"])


# Activations

VALUES = {  # at −1, 0 and 2
    "relu": [0, 0, 2],
    "leaky_relu": [-0.01, 0, 2],
    "tanh": [math.tanh(-1), 0, math.tanh(2)],
    "identity": [-1, 0, 2],
    "gelu": [-0.158655, 0, 1.954500],
    "sin": [math.sin(-1), 0, math.sin(2)],
    "crelu": [0, 0, 2, 1, 0, 0],
    "fourier": [math.sin(-1), 0, math.sin(2), math.cos(-1), 1, math.cos(2)],
}


@pytest.mark.parametrize(("activation", "values"), VALUES.items())
def test_activation_has_known_values(activation, values):
    module = activations.ACTIVATIONS[activation]()
    outputs = module(torch.tensor([-1.0, 0.0, 2.0]))
    torch.testing.assert_close(outputs, torch.tensor(values, dtype=torch.float32))
    assert activations.ACTIVATIONS[activation].expansion == len(values) // 3
    assert isinstance(module, activations.ACTIVATION_CLASSES)


def test_all_activations_are_tested():
    assert VALUES.keys() == activations.ACTIVATIONS.keys() == SQUARED_GAINS.keys()


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_doubling_activation_concatenates_along_units_or_channels(activation):
    x = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    on_units, on_channels = (
        activations.ACTIVATIONS[activation](),
        activations.ACTIVATIONS[activation](-3),
    )
    outputs = on_channels(x)
    assert outputs.shape == (4, 6, 5, 2)
    torch.testing.assert_close(outputs, on_units(x.movedim(1, -1)).movedim(-1, 1))
    assert torch.equal(torch.vmap(on_channels)(x[None])[0], outputs)


@pytest.mark.parametrize(("activation", "is_linear"), [("identity", True), ("relu", False)])
def test_only_a_network_of_identities_is_affine_in_its_input(activation, is_linear):
    network = mlp(activation, width=7, depth=3)
    module = architecture.build(network, SHAPE, 4).double()
    torch.manual_seed(0)
    a, b = torch.randn(2, 10, *SHAPE).double()
    parameters = architecture.draw_initial(module, network, 0)
    at_a, at_b, at_middle = (functional_call(module, parameters, (x,)) for x in (a, b, (a + b) / 2))
    curvature = (at_a + at_b - 2 * at_middle).abs().max().item()
    if is_linear:
        assert curvature < 1e-12
    else:
        assert curvature > 1e-2


# Layers and outputs of each architecture


def test_mlp_has_named_layers_with_the_configured_shapes():
    module = architecture.build(mlp("tanh", width=5, depth=2), SHAPE, 4)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert shapes == {
        "hidden_1.weight": (5, 12),
        "hidden_1.bias": (5,),
        "hidden_2.weight": (5, 5),
        "hidden_2.bias": (5,),
        "output.weight": (4, 5),
        "output.bias": (4,),
    }
    kinds = [nn.Flatten, nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [type(layer) for layer in module] == kinds
    names = "flatten hidden_1 activation_1 hidden_2 activation_2 output"
    assert child_names(module) == names.split()


def test_numbers_of_parameters_are_the_known_ones():
    resnet = Network("resnet18", "relu", options={"width": 64})
    assert count_parameters(resnet, (3, 32, 32), 10) == 11_173_962
    cnn = Network("cnn", "relu", options={"width": 100})
    after_flatten = (400 + 1) * 16 + 101 * 100 + 101 * 10
    on_32_pixels = (75 + 1) * 16 + (16 * 5 * 5 + 1) * 100
    on_28_pixels = (25 + 1) * 16 + (16 * 4 * 4 + 1) * 100
    assert count_parameters(cnn, (3, 32, 32), 10) == after_flatten + on_32_pixels
    assert count_parameters(cnn, (1, 28, 28), 10) == after_flatten + on_28_pixels


@pytest.mark.parametrize("activation", ["relu", "fourier"])
@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        ("cnn", "none"),
        ("cnn", "layer"),
        ("cnn", "batch"),
        ("resnet18", "none"),
        ("resnet18", "layer"),
        ("resnet18", "batch"),
        ("vit", None),
    ],
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 16, 24)])
def test_images_of_different_sizes_give_one_output_per_class(kind, norm, shape, activation):
    options = {"width": 4}
    if norm is not None:
        options["norm"] = norm
    module = architecture.build(Network(kind, activation, options=options), shape, 7)
    assert module(torch.randn(5, *shape)).shape == (5, 7)


TORCHVISION_NORMS = {
    "batch": partial(nn.BatchNorm2d, track_running_stats=False),
    "layer": partial(nn.GroupNorm, 1),
}


@pytest.mark.parametrize("norm", TORCHVISION_NORMS)
def test_resnet18_equals_torchvisions_with_a_stem_for_small_images(norm):
    reference = torchvision.models.resnet18(num_classes=10, norm_layer=TORCHVISION_NORMS[norm])
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    for layer in reference.modules():
        if hasattr(layer, "relu"):
            layer.relu = nn.Tanh()
    network = Network("resnet18", "tanh", options={"width": 64, "norm": norm})
    module = architecture.build(network, (3, 16, 16), 10)
    draw = torch.Generator().manual_seed(0)
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        values = torch.randn(theirs.shape, generator=draw, dtype=torch.float64)
        ours.data = values / math.sqrt(theirs[0].numel())
        theirs.data = ours.data
    inputs = torch.randn(4, 3, 16, 16, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(module(inputs), reference(inputs), rtol=1e-10, atol=1e-10)


def test_cnn_equals_its_layers_written_out():
    network = Network("cnn", "tanh", options={"width": 6})
    module = architecture.build(network, (2, 17, 22), 4).double()
    parameters = dict(module.named_parameters())

    def apply(function, layer, x):
        return function(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])

    inputs = draw_tensor(5, 2, 17, 22)
    x = max_pool2d(apply(conv2d, "conv_1", inputs).tanh(), 2)
    x = max_pool2d(apply(conv2d, "conv_2", x).tanh(), 2)
    x = apply(linear, "hidden_1", x.reshape(5, -1)).tanh()
    x = apply(linear, "hidden_2", x).tanh()
    torch.testing.assert_close(module(inputs), apply(linear, "output", x))


def test_layers_of_the_cnn_are_named_by_kind_and_level():
    module = architecture.build(Network("cnn", "relu", options={"width": 6}), (1, 16, 16), 4)
    names = "conv_1 activation_1 pool_1 conv_2 activation_2 pool_2 flatten"
    names += " hidden_1 activation_3 hidden_2 activation_4 output"
    assert child_names(module) == names.split()


def test_layers_of_resnet18_are_named_by_stage_block_and_kind():
    module = architecture.build(Network("resnet18", "relu", options={"width": 6}), (1, 8, 8), 4)
    stages = [f"stage_{stage}" for stage in range(1, 5)]
    expected = ["conv_1", "norm_1", "activation_1", *stages, "pool", "flatten", "output"]
    assert child_names(module) == expected
    layers = ["conv_1", "norm_1", "activation_1", "conv_2", "norm_2", "activation_2", "shortcut"]
    for stage in stages:
        names = {"", "block_1", "block_2"}
        names |= {f"block_1.{layer}" for layer in layers}
        names |= {f"block_2.{layer}" for layer in layers}
        if stage != "stage_1":
            names |= {"block_1.shortcut.conv", "block_1.shortcut.norm"}
        assert sorted(names) == sorted(
            name for name, _ in module.get_submodule(stage).named_modules()
        )


def test_hooks_see_seventeen_activations_of_resnet18_each_after_its_norm():
    module = architecture.build(Network("resnet18", "relu", options={"width": 2}), (1, 8, 8), 3)
    calls = []
    for name, layer in module.named_modules():
        if type(layer) in (BatchNorm, nn.ReLU):
            layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    module(torch.randn(4, 1, 8, 8))
    activation_calls = [index for index, name in enumerate(calls) if "norm" not in name]
    assert len(activation_calls) == 17
    for index in activation_calls:
        assert calls[index - 1] == calls[index].replace("activation", "norm")


@pytest.mark.parametrize("size", [(15, 40), (40, 15)])
def test_images_too_small_for_the_cnn_are_refused_with_the_required_size(size):
    message = (
        rf"at least 16 × 16 pixels, and these have {size[0]} × {size[1]}\. "
        r"Choose another network\.kind\.$"
    )
    with pytest.raises(StudyError, match=message):
        architecture.build(Network("cnn", "relu", options={"width": 6}), (1, *size), 4)


@pytest.mark.parametrize("example", EXAMPLES)
def test_outputs_depend_only_on_parameters_and_batch(example):
    network, shape = EXAMPLES[example]
    module = architecture.build(network, shape, 4).double()
    inputs, other_inputs = draw_tensor(2, 5, *shape)
    parameters = architecture.draw_initial(module, network, seed=0)
    first = functional_call(module.train(), parameters, (inputs,))
    functional_call(module, parameters, (7 * other_inputs + 3,))
    assert torch.equal(functional_call(module, parameters, (inputs,)), first)
    in_eval_mode = functional_call(module.eval(), parameters, (inputs,))
    torch.testing.assert_close(in_eval_mode, first, rtol=1e-10, atol=1e-10)
    assert not list(module.buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("example", EXAMPLES)
def test_vmap_over_runs_equals_each_run_alone(example, training):
    network, shape = EXAMPLES[example]
    module = architecture.build(network, shape, 4).double().train(training)
    inputs = draw_tensor(2, 5, *shape)
    runs = [architecture.draw_initial(module, network, seed) for seed in range(2)]
    stacked = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
    outputs = torch.vmap(lambda parameters, x: functional_call(module, parameters, (x,)))(
        stacked, inputs
    )
    for run in range(2):
        alone = functional_call(module, runs[run], (inputs[run],))
        torch.testing.assert_close(outputs[run], alone, rtol=1e-10, atol=1e-10)


# Matched networks

MATCHED = {  # options without the width, shape of the images, number that divides the width
    "mlp": ({"depth": 2, "norm": "layer"}, SHAPE, 1),
    "cnn": ({}, (1, 16, 16), 1),
    "resnet18": ({}, (2, 8, 8), 1),
    "vit": ({"depth": 1, "heads": 3, "patch": 2}, (1, 4, 4), 3),
}


@given(st.sampled_from(sorted(MATCHED)), st.sampled_from(["crelu", "fourier"]), st.integers(1, 6))
def test_matched_network_has_the_width_with_the_number_of_parameters_closest_to_relu(
    kind, activation, factor
):
    options, shape, multiple = MATCHED[kind]
    widest = factor * multiple

    def count(width, activation=activation, matched=False):
        all_options = options | {"width": width}
        network = Network(kind, activation, matched=matched, options=all_options)
        return count_parameters(network, shape)

    target = count(widest, "relu")
    counts = [count(width) for width in range(multiple, widest + 1, multiple)]
    closest = min(counts, key=lambda candidate: abs(candidate - target))
    assert count(widest, matched=True) == closest


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_matched_has_no_effect_if_the_activation_does_not_double(activation):
    network = mlp(activation, width=9, depth=2)
    matched = replace(network, matched=True)
    module = architecture.build(network, SHAPE, 4)
    assert str(architecture.build(matched, SHAPE, 4)) == str(module)


def test_matched_network_can_have_the_default_width():
    matched = Network("cnn", "crelu", matched=True)
    shape = (1, 28, 28)
    size = count_parameters(matched, shape)
    assert size < 1.01 * count_parameters(replace(matched, activation="relu"), shape)
    assert count_parameters(replace(matched, matched=False), shape) > 1.5 * size


# Normalization


def test_norm_layers_come_before_each_activation_of_mlp_and_cnn():
    module = architecture.build(mlp("relu", width=5, depth=2, norm="layer"), SHAPE, 4)
    names = "flatten hidden_1 norm_1 activation_1 hidden_2 norm_2 activation_2 output"
    assert child_names(module) == names.split()
    network = Network("cnn", "relu", options={"norm": "layer"})
    module = architecture.build(network, (1, 16, 16), 4)
    names = "conv_1 norm_1 activation_1 pool_1 conv_2 norm_2 activation_2 pool_2 flatten"
    names += " hidden_1 norm_3 activation_3 hidden_2 norm_4 activation_4 output"
    assert child_names(module) == names.split()
    norms = [type(layer) for name, layer in module.named_children() if "norm" in name]
    assert norms == [nn.GroupNorm, nn.GroupNorm, nn.LayerNorm, nn.LayerNorm]


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_convolutions_of_resnet18_have_biases_only_without_norm(norm):
    network = Network("resnet18", "relu", options={"width": 2, "norm": norm})
    module = architecture.build(network, (1, 8, 8), 4)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.bias is not None for layer in convolutions} == {norm == "none"}
    has_norm_parameters = any("norm" in name for name, _ in module.named_parameters())
    assert has_norm_parameters == (norm != "none")


@pytest.mark.parametrize("kind", ["mlp", "cnn", "resnet18"])
def test_unknown_norm_is_refused_by_its_name(kind):
    options = {"width": 4, "norm": "group"}
    if kind == "mlp":
        options["depth"] = 1
    message = r"^network\.norm is 'group'\. Choose none, layer or batch\.$"
    with pytest.raises(StudyError, match=message):
        architecture.build(Network(kind, "relu", options=options), (1, 16, 16), 4)


def test_mlp_with_layer_norm_and_crelu_equals_its_equations():
    network = mlp("crelu", width=5, depth=2, norm="layer")
    module = architecture.build(network, SHAPE, 4).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    p = dict(module.named_parameters())
    inputs = torch.randn(6, *SHAPE).double()
    x = inputs.flatten(1)
    for level in (1, 2):
        z = x @ p[f"hidden_{level}.weight"].T + p[f"hidden_{level}.bias"]
        z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        z = z * p[f"norm_{level}.weight"] + p[f"norm_{level}.bias"]
        x = torch.cat([z.clamp(min=0), (-z).clamp(min=0)], 1)
    torch.testing.assert_close(module(inputs), x @ p["output.weight"].T + p["output.bias"])


@pytest.fixture(params=[(7, 3), (4, 3, 2, 5)])
def batch_norms(request):
    """Return our and torch's batch norm with equal random parameters, and a batch."""
    torch.manual_seed(0)
    x = 3 * torch.randn(request.param).double() + 1
    torch_class = nn.BatchNorm1d if x.ndim == 2 else nn.BatchNorm2d
    ours = BatchNorm(3).double()
    theirs = torch_class(3, track_running_stats=False).double()
    for parameter, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        reference.data = nn.init.normal_(parameter).data.clone()
    return ours, theirs, x.requires_grad_()


def test_batch_norm_in_training_equals_torchs_with_first_and_second_derivatives(batch_norms):
    ours, theirs, x = batch_norms

    def outputs_and_derivatives(layer):
        variables = [x, *layer.parameters()]
        outputs = layer(x)
        first = torch.autograd.grad(outputs.sin().sum(), variables, create_graph=True)
        squared_norm = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(squared_norm, variables)
        return [outputs, *first, *second]

    actual, expected = outputs_and_derivatives(ours), outputs_and_derivatives(theirs)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_batch_norm_in_eval_mode_has_equal_outputs_and_per_sample_gradients(batch_norms):
    layer, _, x = batch_norms
    in_training = layer(x)
    in_eval = layer.eval()(x)
    torch.testing.assert_close(in_eval, in_training, rtol=1e-10, atol=1e-10)
    dims = [0, *range(2, x.ndim)]
    scale = layer.weight.detach() / (x.detach().var(dims, correction=0) + 1e-5).sqrt()
    [gradient] = torch.autograd.grad(in_eval[1].sum(), x)
    ones = [1] * (x.ndim - 2)
    torch.testing.assert_close(gradient[1], scale.view(-1, *ones).expand_as(gradient[1]))
    other_samples = [0, 2, 3]
    assert not gradient[other_samples].any()
    [gradient] = torch.autograd.grad(in_training[1].square().sum(), x)
    assert gradient[other_samples].any()


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_equal_numbers_is_its_bias(training):
    layer = BatchNorm(3).double().train(training)
    nn.init.normal_(layer.bias)
    for x in (torch.full((4, 3), 2.0).double(), torch.full((1, 3, 2, 2), 2.0).double()):
        outputs = layer(x).movedim(1, -1)
        torch.testing.assert_close(outputs, layer.bias.expand_as(outputs))


def test_batch_norm_of_one_sample_in_eval_mode_is_its_bias():
    layer = BatchNorm(3).double().eval()
    nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(torch.randn(1, 3).double()), layer.bias[None])


@pytest.mark.parametrize("single", [{"batch": 1}, {"test_samples": 1}])
def test_batch_norm_of_one_image_is_refused(data, single):
    budget = {"samples": 20, "batch": 5, "epochs": 1} | single
    problem = Problem("tiny", "shuffle_labels", **budget)
    network = mlp("relu", width=4, depth=1, norm="batch")
    setting = Setting(problem, network, Optimizer("sgd", options={"lr": 0.1}))
    message = (
        r"batch norm has no statistics of one image\. "
        r"Raise problem\.batch or problem\.test_samples"
    )
    with pytest.raises(StudyError, match=message):
        architecture.build_for(setting, data)
    without_norm = replace(setting, network=mlp("relu", width=4, depth=1))
    assert architecture.build_for(without_norm, data)


# Vision transformer


def torch_encoder(module, width, heads, depth):
    """Return torch's transformer encoder with the weights of a vit."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, torch.tanh, batch_first=True, norm_first=True
    )
    final_norm = nn.LayerNorm(width)
    encoder = nn.TransformerEncoder(layer, depth, final_norm, enable_nested_tensor=False).double()
    our_names = {
        "self_attn.in_proj_": "attention.query_key_value.",
        "self_attn.out_proj": "attention.projection",
        "linear1": "hidden_1",
        "linear2": "hidden_2",
        "norm1": "norm_1",
        "norm2": "norm_2",
    }
    parameters = dict(module.named_parameters())
    for name, parameter in encoder.named_parameters():
        for theirs, ours in our_names.items():
            name = name.replace(theirs, ours)
        if name.startswith("layers."):
            _, index, rest = name.split(".", 2)
            name = f"block_{int(index) + 1}.{rest}"
        parameter.data = parameters[name].data
    return encoder


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_vit_equals_torchs_transformer_on_patches_with_positions(heads):
    network = Network("vit", "tanh", options={"width": 6, "depth": 2, "heads": heads, "patch": 2})
    module = architecture.build(network, (3, 4, 6), 5).double()
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 3, 4, 6).double()
    patches = nn.functional.unfold(x, 2, stride=2).mT
    tokens = module.embedding(patches) + module.positions.weight
    features = torch_encoder(module, 6, heads, 2)(tokens).mean(dim=1)
    torch.testing.assert_close(module(x), module.output(features), rtol=1e-10, atol=1e-10)


def test_patches_are_in_row_major_order_with_contiguous_channels():
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = Patches(2)(x)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            patch = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 3 * row + column], patch.flatten(1))


def test_vit_has_second_derivatives():
    network, shape = EXAMPLES["vit"]
    module = architecture.build(network, shape, 2).double()
    initial = architecture.draw_initial(module, network, seed=0)
    parameters = {name: value.requires_grad_() for name, value in initial.items()}
    name = "block_1.attention.query_key_value.weight"
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, generator=draw).double()

    def loss(weight):
        return functional_call(module, parameters | {name: weight}, (x,)).square().sum()

    assert torch.autograd.gradgradcheck(loss, (parameters[name],), atol=1e-4)


def test_vit_refuses_images_that_its_patches_do_not_tile():
    message = (
        r"^network\.patch is 4, and the images have 8 × 10 pixels\. "
        r"Choose a network\.patch that divides both\.$"
    )
    with pytest.raises(StudyError, match=message):
        architecture.build(Network("vit", "relu"), (1, 8, 10), 4)


def test_vit_refuses_a_width_that_its_heads_cannot_share():
    message = r"^network\.width is 10, which is no multiple of the 4 heads\. Change network\.width"
    with pytest.raises(StudyError, match=message):
        architecture.build(Network("vit", "relu", options={"width": 10}), (1, 8, 8), 4)


def test_every_shortcut_of_resnet18_is_a_convolution_if_the_activation_doubles():
    module = architecture.build(Network("resnet18", "crelu", options={"width": 3}), (1, 8, 8), 4)
    shortcuts = [layer for name, layer in module.named_modules() if name.endswith("shortcut.conv")]
    assert len(shortcuts) == 8
    ratios = [layer.in_channels // layer.out_channels for layer in shortcuts]
    assert ratios == [2, 2, 1, 2, 1, 2, 1, 2]
    strides = [layer.stride[0] for layer in shortcuts]
    assert strides == [1, 1, 2, 1, 2, 1, 2, 1]
