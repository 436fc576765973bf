"""Members in lock-step against each member's network alone, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity.lockstep import Parameters, forward, rows

MEMBERS, SAMPLES = 4, 6


def drawn(activation=nn.Tanh, bias=True):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(-3), nn.Linear(6, 5, bias=bias), activation(), nn.Linear(5, 3)).double()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    flat = torch.randn(MEMBERS, sum(parameter.numel() for parameter in network.parameters())).double()
    return network, Parameters(flat, shapes), torch.randn(MEMBERS, SAMPLES, 1, 2, 3).double()


def alone(network, parameters, member):
    """One member's parameters by name, cut from its row by hand."""
    tensors, start = {}, 0
    for name, parameter in network.named_parameters():
        tensors[name] = parameters.flat.detach()[member, start : start + parameter.numel()].clone().view(parameter.shape).requires_grad_()
        start += parameter.numel()
    return tensors


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_those_of_each_members_network_alone(activation, bias):
    network, parameters, inputs = drawn(activation, bias)
    outputs = forward(network, parameters.tensors, inputs)
    assert outputs.shape == (MEMBERS, SAMPLES, 3)
    for member in range(MEMBERS):
        expected = functional_call(network, alone(network, parameters, member), (inputs[member],))
        torch.testing.assert_close(outputs[member], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("penalised", [False, True])
def test_gradients_are_those_of_each_members_loss_alone(penalised):
    network, parameters, inputs = drawn()
    targets = torch.randn(MEMBERS, SAMPLES, 3).double()
    penalty = parameters.flat.pow(4).sum(dim=1) if penalised else 0
    gradient = parameters.gradient((forward(network, parameters.tensors, inputs) - targets).square().sum(dim=(1, 2)) + penalty)
    for member in range(MEMBERS):
        tensors = alone(network, parameters, member)
        loss = (functional_call(network, tensors, (inputs[member],)) - targets[member]).square().sum()
        loss = loss + penalised * sum(tensor.pow(4).sum() for tensor in tensors.values())
        expected = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(tensors.values()))])
        torch.testing.assert_close(gradient[member], expected, rtol=1e-12, atol=1e-12)


def test_a_loss_of_flat_alone_has_its_gradient():
    _, parameters, _ = drawn()
    gradient = parameters.gradient(parameters.flat.pow(3).sum(dim=1))
    torch.testing.assert_close(gradient, 3 * parameters.flat.detach().square(), rtol=1e-12, atol=0)


def test_a_gradient_does_not_depend_on_the_one_before():
    network, parameters, inputs = drawn()
    gradients = [parameters.gradient(parameters.forward(network, inputs).square().sum(dim=(1, 2))).clone() for _ in range(2)]
    assert torch.equal(*gradients)


def test_tensors_are_views_into_flat():
    network, parameters, inputs = drawn()
    before = forward(network, parameters.tensors, inputs)
    storage = parameters.flat.untyped_storage().data_ptr()
    assert all(tensor.untyped_storage().data_ptr() == storage for tensor in parameters.tensors.values())
    with torch.no_grad():
        parameters.flat[2] += 1
    after = forward(network, parameters.tensors, inputs)
    assert (after != before).flatten(1).any(dim=1).tolist() == [False, False, True, False]


def test_rows_and_tensors_are_inverse_to_each_other():
    _, parameters, _ = drawn()
    members = [{name: tensor[member] for name, tensor in parameters.tensors.items()} for member in range(MEMBERS)]
    assert torch.equal(rows(members), parameters.flat)


def test_the_networks_own_parameters_play_no_part():
    network, parameters, inputs = drawn()
    before = forward(network, parameters.tensors, inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(forward(network, parameters.tensors, inputs), before)


def test_a_member_of_nan_harms_no_other():
    network, parameters, inputs = drawn()
    gradient = parameters.gradient(forward(network, parameters.tensors, inputs).square().sum(dim=(1, 2)))
    healthy = gradient.clone()
    with torch.no_grad():
        parameters.flat[1] = torch.nan
    gradient = parameters.gradient(forward(network, parameters.tensors, inputs).square().sum(dim=(1, 2)))
    assert gradient[1].isnan().any()
    assert torch.equal(gradient[[0, 2, 3]], healthy[[0, 2, 3]])


def test_a_penalty_on_the_tensors_counts_beside_the_networks_loss():
    network, parameters, inputs = drawn()

    def losses():
        return parameters.forward(network, inputs).square().sum(dim=(1, 2))

    alone = parameters.gradient(losses()).clone()
    penalty = sum(tensor.flatten(1).pow(3).sum(dim=1) for tensor in parameters.tensors.values())
    together = parameters.gradient(losses() + penalty)
    torch.testing.assert_close(together - alone, 3 * parameters.flat.detach().square(), rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_called_twice_has_both_its_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs):
            return self.layer(torch.tanh(self.layer(inputs)))

    torch.manual_seed(0)
    network, inputs = Twice().double(), torch.randn(2, 5, 3).double()
    parameters = Parameters(torch.randn(2, 12).double(), {"layer.weight": (3, 3), "layer.bias": (3,)})
    noted = parameters.gradient(parameters.forward(network, inputs).square().sum(dim=(1, 2))).clone()
    plain = parameters.gradient(forward(network, parameters.tensors, inputs).square().sum(dim=(1, 2)))
    torch.testing.assert_close(noted, plain, rtol=1e-12, atol=1e-12)
