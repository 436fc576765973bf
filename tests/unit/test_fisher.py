"""The Gram identity against gradients taken one sample at a time, in float64, on drawn networks."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity.operators.fisher import gram_blocks
from plasticity.spectra import eigenvalues

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity]
SAMPLES = 7


def cross_entropy(outputs, targets):
    losses = nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.view(targets.shape)


def drawn(seed, activation, members=None):
    """A network with or without biases, its inputs and targets; with `members`, a set of each per member."""
    torch.manual_seed(seed)
    widths = torch.randint(1, 9, (4,)).tolist()
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b, bias=bool(seed % 2)), activation())]
    network = nn.Sequential(*layers[:-1]).double()
    lead = () if members is None else (members,)
    x, y = torch.randn(*lead, SAMPLES, widths[0]).double(), torch.randint(widths[-1], (*lead, SAMPLES))
    tensors = {name: torch.randn(*lead, *parameter.shape).double().requires_grad_() for name, parameter in network.named_parameters()}
    return network, x, y, tensors


def gradient_rows(network, tensors, x, y):
    """Each sample's gradient of its loss, by layer, shape ``(n, parameter)``."""
    tensors = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    samples = []
    for i in range(len(x)):
        loss = cross_entropy(functional_call(network, tensors, (x[i : i + 1],)), y[i : i + 1]).sum()
        samples.append(dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True)))
    layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    return {
        layer: torch.stack([torch.cat([g.flatten() for name, g in sample.items() if name.startswith(f"{layer}.")]) for sample in samples])
        for layer in layers
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_each_gram_block_is_that_of_the_layers_per_sample_gradients(activation, seed):
    network, x, y, _ = drawn(seed, activation)
    expected = {layer: rows @ rows.T / SAMPLES for layer, rows in gradient_rows(network, dict(network.named_parameters()), x, y).items()}
    grams = gram_blocks(network, x, y, cross_entropy)
    assert list(grams) == list(expected)
    for layer, gram in grams.items():
        torch.testing.assert_close(gram, expected[layer], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_stacked_members_have_the_grams_of_each_alone(activation, seed):
    network, x, y, tensors = drawn(seed, activation, members=3)
    grams = gram_blocks(network, x, y, cross_entropy, tensors)
    for member in range(3):
        alone = {name: tensor[member] for name, tensor in tensors.items()}
        for layer, rows in gradient_rows(network, alone, x[member], y[member]).items():
            torch.testing.assert_close(grams[layer][member], rows @ rows.T / SAMPLES, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_eigenvalues_are_those_of_the_fisher_formed_densely(activation, seed):
    network, x, y, _ = drawn(seed, activation)
    rows = torch.cat(list(gradient_rows(network, dict(network.named_parameters()), x, y).values()), dim=1)
    dense = eigenvalues(rows.T @ rows / SAMPLES)
    found = eigenvalues(sum(gram_blocks(network, x, y, cross_entropy).values()))
    large = dense[dense > 1e-8 * dense[0]]
    assert len(large) <= SAMPLES
    assert (found[: len(large)] / large - 1).abs().le(1e-6).all()
    assert (found[len(large) :] <= 2e-8 * dense[0]).all()


def test_the_trace_is_the_mean_squared_gradient_norm():
    network, x, y, _ = drawn(3, nn.Tanh)
    norms = [rows.square().sum(dim=1) for rows in gradient_rows(network, dict(network.named_parameters()), x, y).values()]
    trace = sum(gram.trace() for gram in gram_blocks(network, x, y, cross_entropy).values())
    assert trace.item() == pytest.approx(sum(norms).mean().item(), rel=1e-12)


def test_a_parameter_that_the_identity_does_not_cover_is_refused_by_name():
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match=r"1\.weight, 1\.bias"):
        gram_blocks(network, torch.randn(2, 3), torch.zeros(2, dtype=torch.long), cross_entropy)


def test_a_member_of_nan_harms_no_other():
    network, x, y, tensors = drawn(1, nn.ReLU, members=3)
    healthy = gram_blocks(network, x, y, cross_entropy, tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor[1] = torch.nan
    for layer, gram in gram_blocks(network, x, y, cross_entropy, tensors).items():
        assert gram[1].isnan().all()
        assert torch.equal(gram[[0, 2]], healthy[layer][[0, 2]])


def test_hooks_are_gone_afterwards_even_when_the_loss_fails():
    network, x, y, _ = drawn(1, nn.ReLU)
    gram_blocks(network, x, y, cross_entropy)
    with pytest.raises(ZeroDivisionError):
        gram_blocks(network, x, y, lambda outputs, targets: 1 / 0)
    assert not any(layer._forward_hooks for layer in network.modules())
