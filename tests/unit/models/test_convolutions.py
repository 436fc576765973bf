"""Convolutional networks in fast memory layouts, against torch's default layout in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity.config.models import Network
from plasticity.models import architecture, convolutions
from plasticity.models.ensemble import Parameters, Watch

RUNS = 3
SEQUENCES = {  # layers, and the shape of an image
    "equal sizes": ([nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)], (4, 4, 4)),
    "no size twice": (
        [nn.Conv2d(2, 7, (3, 5)), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(7, 17, 2), nn.ReLU()],
        (2, 10, 13),
    ),
    "stride and padding of a residual block": (
        [
            nn.Conv2d(3, 16, 3, 1, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(32, 8, 1, 2, bias=False),
        ],
        (3, 9, 8),
    ),
    "groups and dilation": ([nn.Conv2d(6, 9, 3, groups=3, dilation=2), nn.ReLU()], (6, 8, 7)),
    "pooling first and twice": (
        [nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(2, 5, 2), nn.MaxPool2d(2)],
        (2, 11, 8),
    ),
}
NETWORKS = {
    "cnn": ("cnn", "relu", (2, 16, 21), {}),
    "cnn, crelu": ("cnn", "crelu", (2, 16, 21), {}),
    "cnn, batch norm": ("cnn", "relu", (2, 16, 21), {"norm": "batch"}),
    "cnn, layer norm": ("cnn", "tanh", (2, 16, 21), {"norm": "layer"}),
    "resnet18": ("resnet18", "relu", (2, 9, 8), {"norm": "batch"}),
}
FLAT = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(-3), nn.Linear(6, 2))


@pytest.fixture(params=SEQUENCES)
def sequence(request):
    """A network that oneDNN computes, parameters of several runs, and their inputs."""
    layers, image = SEQUENCES[request.param]
    network = nn.Sequential(*layers)
    torch.manual_seed(0)
    tensors = {
        name: torch.randn(RUNS, *parameter.shape, requires_grad=True)
        for name, parameter in network.named_parameters()
    }
    return network, tensors, torch.randn(RUNS, 5, *image)


@pytest.fixture(params=NETWORKS)
def example(request):
    """A network with convolutions, its shapes, rows of parameters, and inputs."""
    kind, activation, image, options = NETWORKS[request.param]
    config = Network(kind, activation, options={"width": 5} | options)
    return drawn(architecture.build(config, image, 3), image)


def drawn(network, image):
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    torch.manual_seed(0)
    count = sum(parameter.numel() for parameter in network.parameters())
    return network, shapes, torch.randn(RUNS, count) / 3, torch.randn(RUNS, 7, *image)


def of_run(tensors, run):
    return {name: tensor[run] for name, tensor in tensors.items()}


def objective(outputs):
    """A loss of each sample, shape ``(…, n)``, with another slope for every output."""
    return (outputs * torch.linspace(-1, 2, outputs.shape[-1])).sum(dim=-1)


def gradient(parameters, bound, inputs):
    return parameters.gradient(lambda: (objective(bound(inputs)), [])).clone()


def test_outputs_and_gradients_of_sequences_equal_those_in_float64(sequence):
    network, tensors, inputs = sequence
    assert convolutions.supports(network, inputs)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    for run in range(RUNS):
        images = inputs[run].clone().requires_grad_()
        exact_images = inputs[run].double().requires_grad_()
        found = convolutions.forward(network, of_run(tensors, run), images)
        expected = functional_call(network, of_run(exact, run), (exact_images,))
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        slopes = torch.randn_like(found)
        gradients = torch.autograd.grad(found, [*tensors.values(), images], slopes)
        exact_gradients = torch.autograd.grad(
            expected, [*exact.values(), exact_images], slopes.double()
        )
        for one, exact_one in zip(gradients, exact_gradients, strict=True):
            torch.testing.assert_close(one.double(), exact_one, rtol=1e-4, atol=1e-4)


def test_early_pooling_moves_pooling_before_relu_and_nothing_past_a_convolution():
    network = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.ReLU()
    )
    names = [name for name, _ in convolutions._pool_early(network)]
    assert names == ["0", "2", "1", "3", "4", "5"]


def test_layer_that_appears_twice_is_called_twice():
    relu, image = nn.ReLU(), (1, 4, 4)
    layers = [nn.Conv2d(1, 2, 2), relu, nn.Conv2d(2, 2, 2), relu, nn.Flatten(-3), nn.Linear(8, 1)]
    network, shapes, flat, inputs = drawn(nn.Sequential(*layers), image)
    parameters = Parameters(flat, shapes)
    found = parameters.bind(network)(inputs)
    expected = functional_call(network, of_run(parameters.tensors, 1), (inputs[1],))
    torch.testing.assert_close(found[1], expected)


def test_bound_and_gradients_of_networks_equal_those_in_float64(example):
    network, shapes, flat, inputs = example
    fast, exact = Parameters(flat, shapes), Parameters(flat.double(), shapes)
    outputs = fast.bind(network)(inputs)
    bound = exact.bind(copy.deepcopy(network).double())
    torch.testing.assert_close(outputs.double(), bound(inputs.double()), rtol=1e-3, atol=1e-3)
    found = gradient(fast, fast.bind(network), inputs)
    expected = gradient(exact, bound, inputs.double())
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_run_does_not_depend_on_its_row_or_on_other_runs(example, samples):
    network, shapes, flat, inputs = example
    network.eval()  # batch norm of one sample is refused in training

    def numbers(runs):
        parameters = Parameters(flat[runs], shapes)
        bound = parameters.bind(network)
        images = inputs[runs, :samples]
        watch = Watch()
        with torch.no_grad():
            outputs = bound(images), bound(images, watch)
        return *outputs, *watch.hidden.values(), gradient(parameters, bound, images)

    together = numbers([0, 1, 2])
    for runs in ([2, 1, 0], [1]):
        for found, expected in zip(numbers(runs), together, strict=True):
            assert torch.equal(found, expected[runs])


def test_hidden_activations_are_those_of_each_run_alone_with_masks(example):
    network, shapes, flat, inputs = example
    parameters = Parameters(flat, shapes)
    network = network.eval()
    watch = Watch()
    bound = parameters.bind(network)
    bound(inputs, watch)
    layers = list(watch.hidden)
    for run in range(RUNS):
        alone = Parameters(flat[[run]], shapes)
        expected = Watch()
        alone.bind(network)(inputs[[run]], expected)
        assert list(expected.hidden) == layers
        for layer in layers:
            assert torch.equal(watch.hidden[layer][run], expected.hidden[layer][0])


def test_masks_act_on_layers_before_and_behind_the_flattening():
    network, shapes, flat, inputs = drawn(
        architecture.build(Network("cnn", "relu", options={"width": 5}), (1, 16, 16), 3),
        (1, 16, 16),
    )
    bound = Parameters(flat, shapes).bind(network)
    watch = Watch(
        {"conv_2": torch.zeros(RUNS, 7, 16, 2, 2), "hidden_1": torch.full((RUNS, 7, 5), 3)}
    )
    bound(inputs, watch)
    assert set(watch.hidden) == {"conv_1", "conv_2", "hidden_1", "hidden_2"}
    assert watch.hidden["conv_1"].any()
    assert not watch.hidden["conv_2"].any()
    bias = Parameters(flat, shapes).tensors["hidden_1.bias"]
    expected = 3 * bias.relu()[:, None].expand(-1, 7, -1)
    torch.testing.assert_close(watch.hidden["hidden_1"], expected)


def test_linear_layers_behind_convolutions_are_computed_for_all_runs_at_once(monkeypatch):
    network, shapes, flat, inputs = drawn(FLAT, (1, 2, 3))
    bound = Parameters(flat, shapes).bind(network)
    monkeypatch.setattr(nn.functional, "linear", None)
    assert bound(inputs).shape == (RUNS, 7, 2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
@pytest.mark.parametrize("where", ["conv_1.weight", "conv_2.bias"])
def test_run_that_may_overflow_is_computed_in_the_default_layout(where, value):
    image = (1, 16, 16)
    network = architecture.build(Network("cnn", "relu", options={"width": 5}), image, 3)
    _, shapes, flat, inputs = drawn(network, image)
    healthy = Parameters(flat, shapes).bind(network)(inputs)
    parameters = Parameters(flat, shapes)
    with torch.no_grad():
        parameters.tensors[where][1] = value
    found = parameters.bind(network)(inputs)
    assert torch.equal(found[[0, 2]], healthy[[0, 2]])
    expected = functional_call(network, of_run(parameters.tensors, 1), (inputs[1],))
    assert torch.equal(found[1].isfinite(), expected.isfinite())
    assert value == 1e38 or not expected.isfinite().any()


def test_overflow_is_excluded_for_finite_runs_only():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1))
    weights = torch.tensor([1, -1e20, torch.nan, 1, 1e18])[:, None, None, None, None]
    tensors = {"0.weight": weights, "0.bias": torch.zeros(5, 1)}
    tensors |= {"2.weight": weights.clone(), "2.bias": torch.zeros(5, 1)}
    inputs = torch.ones(5, 2, 1, 3, 3)
    inputs[3, 1, 0, 2, 2] = torch.nan
    assert convolutions.cannot_overflow(network, tensors, inputs) == [
        True,
        False,
        False,
        False,
        True,
    ]
    tensors["0.bias"][0] = -3e38
    assert not convolutions.cannot_overflow(network, tensors, inputs)[0]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Tanh(),
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Sequential(nn.ReLU()),
    ],
)
def test_other_layers_are_not_supported(layer):
    inputs = torch.zeros(1, 1, 1, 4, 4)
    assert convolutions.supports(nn.Sequential(nn.ReLU()), inputs)
    assert not convolutions.supports(nn.Sequential(nn.ReLU(), layer), inputs)


def test_double_precision_and_autocast_are_not_supported():
    network = nn.Sequential(nn.ReLU())
    inputs = torch.zeros(1, 1, 1, 4, 4)
    assert not convolutions.supports(network, inputs.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolutions.supports(network, inputs)
