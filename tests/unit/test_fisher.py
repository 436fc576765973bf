"""The Gram identity against gradients taken one sample at a time, in float64, on drawn networks."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from plasticity import activations, networks
from plasticity.normalization import BatchNorm
from plasticity.operators.fisher import gram_blocks
from plasticity.settings import Network
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


KINDS = {  # tiny networks: their options, and the images they see
    "cnn": ({"width": 3}, (2, 17, 16)),
    "cnn, layer": ({"width": 3, "norm": "layer"}, (1, 16, 16)),
    "cnn, batch": ({"width": 3, "norm": "batch"}, (1, 16, 16)),
    "resnet18": ({"width": 1}, (2, 8, 8)),
    "resnet18, layer": ({"width": 1, "norm": "layer"}, (2, 8, 8)),
    "resnet18, none": ({"width": 1, "norm": "none"}, (2, 8, 8)),
    "vit": ({"width": 4, "depth": 2, "heads": 2, "patch": 4}, (2, 8, 12)),
    "mlp": ({"width": 5, "depth": 2}, (1, 2, 3)),
    "mlp, layer": ({"width": 5, "depth": 2, "norm": "layer"}, (1, 2, 3)),
    "mlp, batch": ({"width": 5, "depth": 2, "norm": "batch"}, (1, 2, 3)),
}


def built(kind, activation, seed, samples=SAMPLES):
    """A network in eval mode with drawn parameters, norms' too, and a batch with targets."""
    options, shape = KINDS[kind]
    network = networks.build(Network(kind.partition(",")[0], activation, options=options), shape, 3).double().eval()
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.3, parameter[0].numel() ** -0.5))
    return network, torch.randn(samples, *shape).double(), torch.randint(3, (samples,))


class Frozen(nn.Module):
    """A batch norm whose mean and variance are given numbers: what it is to one sample."""

    def __init__(self, layer, x):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        dims = [0, *range(2, x.ndim)]
        self.mean, self.variance = x.detach().mean(dims), x.detach().var(dims, correction=0)

    def forward(self, x):
        mean, variance, weight, bias = (v.view(-1, *[1] * (x.ndim - 2)) for v in (self.mean, self.variance, self.weight, self.bias))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def frozen(network, x):
    """The network with each batch norm's statistics on a batch as constants."""
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda layer, a, _, name=name: seen.update({name: Frozen(layer, a[0])}))
        for name, layer in network.named_modules()
        if isinstance(layer, BatchNorm)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    copy = nn.Sequential(network)
    for name, layer in seen.items():
        copy.set_submodule(f"0.{name}", layer)
    return copy[0]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(activation=st.sampled_from(sorted(activations.KINDS)), seed=st.integers(0, 9), samples=st.integers(4, 6))
def test_the_gram_blocks_of_every_network_are_those_of_gradients_taken_one_sample_at_a_time(kind, activation, seed, samples):
    network, x, y = built(kind, activation, seed, samples)
    grams = gram_blocks(network, x, y, cross_entropy)
    network = frozen(network, x)
    expected = gradient_rows(network, dict(network.named_parameters()), x, y)
    assert grams.keys() == expected.keys()
    for layer, rows in expected.items():
        gram = rows @ rows.T / samples
        torch.testing.assert_close(grams[layer], gram, rtol=1e-7, atol=1e-9 * (1 + gram.abs().max().item()))


@pytest.mark.parametrize("tokens", [1, 2, 3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_few_tokens_and_on_many_has_the_gram_of_its_gradients(tokens, bias):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 30, bias=bias), nn.Tanh(), nn.Flatten(), nn.Linear(30 * tokens, 3)).double()
    x, y = torch.randn(SAMPLES, tokens, 20).double(), torch.randint(3, (SAMPLES,))
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(gram_blocks(network, x, y, cross_entropy)["0"], rows @ rows.T / SAMPLES, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 2}, {"dilation": 2}, {"stride": (1, 3), "padding": (0, 1)}])
def test_a_convolution_of_any_stride_padding_and_dilation_has_the_gram_of_its_gradients(options):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, (3, 2), **options), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    network, x, y = nn.Sequential(*layers).double(), torch.randn(SAMPLES, 2, 8, 7).double(), torch.randint(3, (SAMPLES,))
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(gram_blocks(network, x, y, cross_entropy)["0"], rows @ rows.T / SAMPLES, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("activation", ["tanh", "crelu", "fourier", "gelu"])
@pytest.mark.parametrize("kind", ["mlp", "mlp, layer"])
def test_stacked_members_of_an_mlp_have_the_grams_of_each_alone_with_those_of_its_norms(kind, activation):
    network, _, _ = built(kind, activation, 0)
    drawn = [built(kind, activation, seed) for seed in range(3)]
    tensors = {
        name: torch.stack([dict(one.named_parameters())[name].detach() for one, *_ in drawn]) for name, _ in network.named_parameters()
    }
    x, y = (torch.stack([values[place] for values in drawn]) for place in (1, 2))
    grams = gram_blocks(network, x, y, cross_entropy, {name: tensor.requires_grad_() for name, tensor in tensors.items()})
    for member, (alone, own, targets) in enumerate(drawn):
        expected = gram_blocks(alone, own, targets, cross_entropy)
        assert grams.keys() == expected.keys()
        for layer, gram in expected.items():
            torch.testing.assert_close(grams[layer][member], gram, rtol=1e-10, atol=1e-13)


REFUSED = {
    "0.weight, 0.bias$": nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)),
    "1.weight, 1.bias$": nn.Sequential(nn.Linear(3, 3), BatchNorm(3)),  # in training mode
    "1.weight$": nn.Sequential(nn.Linear(3, 3), nn.PReLU()),
    "0.weight$": nn.Sequential(nn.Conv2d(2, 2, 1, groups=2, bias=False)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_parameter_that_no_identity_covers_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^no Gram identity for {name}"):
        gram_blocks(REFUSED[name], torch.randn(2, 3), torch.zeros(2, dtype=torch.long), cross_entropy)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


def test_a_layer_that_is_called_twice_and_layers_that_share_a_weight_are_refused():
    network, layer, twin, x, y = Twice(), nn.Linear(3, 3), nn.Linear(3, 3), torch.randn(2, 3), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="for layer, which is called twice"):
        gram_blocks(network, x, y, cross_entropy)
    assert not network.layer._forward_hooks
    twin.weight = layer.weight
    with pytest.raises(ValueError, match="layers that share a parameter"):
        gram_blocks(nn.Sequential(layer, twin), x, y, cross_entropy)


def test_stacked_members_of_a_network_that_does_not_broadcast_are_refused():
    network, x, y = built("vit", "relu", 0)
    tensors = {name: parameter[None] for name, parameter in network.named_parameters()}
    with pytest.raises(ValueError, match="does not broadcast: its members come one after the other"):
        gram_blocks(network, x[None], y[None], cross_entropy, tensors)


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
