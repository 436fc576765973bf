"""Compare Hessian–vector products of chains with dense Hessians by autograd, in float64."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity.curvature.batch_loss import BatchLoss
from plasticity.curvature.chain_hessian import ChainHessian, is_chain
from plasticity.curvature.operators import hessian
from plasticity.models.activations import ACTIVATIONS
from plasticity.models.losses import cross_entropy

ACTIVATION_NAMES = [name for name, kind in ACTIVATIONS.items() if kind.expansion == 1]


def squared_error(outputs, targets):
    return (outputs - nn.functional.one_hot(targets, outputs.shape[-1])).square().sum(dim=-1)


LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def chain(widths, activation="tanh", bias=True):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias), ACTIVATIONS[activation].module()]
    return nn.Sequential(*layers[:-1]).double()


def batch_of(widths, n, network, loss=cross_entropy):
    inputs = torch.randn(n, 1, 1, widths[0]).double()
    return BatchLoss(network, inputs, torch.randint(widths[-1], (n,)), loss)


def dense_hessian(batch, layers):
    names = batch.parameters_in(layers)
    sizes = [batch.tensors[name].numel() for name in names]

    def mean_loss(row):
        parts = zip(names, row.split(sizes), strict=True)
        tensors = {name: part.view_as(batch.tensors[name]) for name, part in parts}
        outputs = functional_call(batch.network, tensors, (batch.inputs,))
        return batch.loss(outputs, batch.targets).mean()

    row = torch.cat([batch.tensors[name].detach().flatten() for name in names])
    return torch.autograd.functional.hessian(mean_loss, row)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("widths", "n"), [([3, 5, 4, 2], 7), ([4, 4, 4, 4], 4), ([3, 2], 1)])
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_product_is_that_of_the_dense_hessian_on_every_block(activation, widths, n, bias, loss):
    batch = batch_of(widths, n, chain(widths, activation, bias), LOSSES[loss])
    assert is_chain(batch)
    product = ChainHessian(batch).product
    names = list(batch.layers)
    for layers in ([names[0]], [names[-1]], names[-2:], names):
        parameters = batch.parameters_in(layers)
        vectors = torch.randn(3, batch.size_of(layers)).double()
        parts = product(dict(zip(parameters, batch.split(vectors, parameters), strict=True)))
        found = batch.join([parts[name] for name in parameters], parameters)
        expected = vectors @ dense_hessian(batch, layers)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_operator_uses_autograd_if_a_hook_changes_the_network():
    widths = [3, 5, 2]
    network = chain(widths)
    batch = batch_of(widths, 6, network)
    network[1].register_forward_hook(lambda layer, inputs, outputs: 2 * outputs)
    assert is_chain(batch)
    layers = list(batch.layers)
    operator = hessian.Operator(network, batch.inputs, batch.targets, cross_entropy)
    vectors = torch.randn(2, batch.size_of(layers)).double()
    expected = vectors @ dense_hessian(batch, layers)
    torch.testing.assert_close(operator.product(layers)(vectors), expected, rtol=1e-10, atol=1e-13)


class Residual(nn.Sequential):
    def forward(self, inputs):
        return inputs.flatten(1) + super().forward(inputs)


def frozen(network):
    network[1].weight.requires_grad_(False)
    return network


def shared(network):
    network[3].weight = network[1].weight
    return network


@pytest.mark.parametrize(
    "network",
    [
        Residual(*chain([4, 4, 4])),
        frozen(chain([4, 4, 4])),
        shared(chain([4, 4, 4])),
        nn.Sequential(*chain([4, 4]), nn.Dropout()),
        nn.Sequential(*chain([4, 4]), nn.LayerNorm(4).double()),
        nn.Sequential(nn.Tanh(), *chain([4, 4])),
    ],
)
def test_other_networks_are_no_chains(network):
    assert not is_chain(batch_of([4, 4], 3, network))
