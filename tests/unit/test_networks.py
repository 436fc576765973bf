"""The law of the initial weights, the names of the layers, and what a deep linear network is."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity import networks
from plasticity.settings import Network

SHAPE = (2, 2, 3)
GAINS = {"relu": 2, "leaky_relu": 2 / 1.0001, "tanh": 25 / 9, "identity": 1}  # squared


@pytest.mark.parametrize(("activation", "gain"), GAINS.items())
def test_weights_are_normal_with_variance_gain_squared_over_fan_in_and_biases_zero(activation, gain):
    network = Network("mlp", 128, 2, activation)
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
    network = Network("mlp", 400, 6, "relu")
    module = networks.build(network, (1, 20, 20), 400).double()
    torch.manual_seed(0)
    inputs = torch.randn(200, 1, 20, 20).double()
    outputs = functional_call(module, networks.initial(module, network, seed=0), (inputs,))
    assert outputs.square().mean().item() == pytest.approx(1, rel=0.2)


def test_layers_are_named_by_their_depth_and_shaped_by_the_config():
    module = networks.build(Network("mlp", 5, 2, "tanh"), SHAPE, 4)
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


def test_initial_parameters_have_the_networks_names_and_shapes_in_its_order():
    network = Network("mlp", 5, 3, "relu")
    module = networks.build(network, SHAPE, 4)
    drawn = networks.initial(module, network, seed=0)
    assert [(name, value.shape) for name, value in drawn.items()] == [(name, p.shape) for name, p in module.named_parameters()]
    assert all(value.dtype == torch.float64 for value in drawn.values())


def test_a_draw_is_known_by_its_seed_and_task_and_by_nothing_else():
    network = Network("mlp", 5, 2, "relu")

    def draw(seed, task):
        return networks.initial(networks.build(network, SHAPE, 4), network, seed, task)["hidden_2.weight"]

    first = draw(1, 0)
    torch.manual_seed(5)
    draws = [draw(seed, task) for seed in range(3) for task in range(3)]
    assert torch.equal(draws[3], first)
    assert len({tuple(weight.flatten().tolist()) for weight in draws}) == 9


def test_seed_and_draw_of_a_layer_do_not_depend_on_the_layers_after_it():
    shallow, deep = (Network("mlp", 5, depth, "relu") for depth in (1, 4))
    weights = [networks.initial(networks.build(network, SHAPE, 4), network, 0)["hidden_1.weight"] for network in (shallow, deep)]
    assert torch.equal(*weights)


def test_a_network_of_identities_is_linear_in_its_input_and_one_of_relus_is_not():
    def curvature_along_a_line(activation):
        network = Network("mlp", 7, 3, activation)
        module = networks.build(network, SHAPE, 4).double()
        torch.manual_seed(0)
        a, b = torch.randn(2, 10, *SHAPE).double()
        parameters = networks.initial(module, network, 0)
        outputs = [functional_call(module, parameters, (x,)) for x in (a, b, (a + b) / 2)]
        return (outputs[0] + outputs[1] - 2 * outputs[2]).abs().max().item()

    assert curvature_along_a_line("identity") < 1e-12
    assert curvature_along_a_line("relu") > 1e-2
