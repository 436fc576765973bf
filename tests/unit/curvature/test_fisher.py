"""Compare Gram matrices with per-sample gradients, in float64, on random networks."""

from itertools import pairwise

import pytest
import torch
from dense import with_explicit_norms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from plasticity import log
from plasticity.config.models import Network
from plasticity.curvature.operators import fisher
from plasticity.curvature.spectrum import eigenvalues
from plasticity.errors import StudyError
from plasticity.models import activations, architecture

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity]
SAMPLES = 7


def cross_entropy(outputs, targets):
    losses = nn.functional.cross_entropy(
        outputs.flatten(0, -2), targets.flatten(), reduction="none"
    )
    return losses.view(targets.shape)


def gram_matrices(*arguments):
    return dict(fisher.Operator(*arguments).gram_matrices())


def random_mlp(seed, activation, runs=None):
    """Draw a network with or without biases, inputs, targets and tensors, all per run if asked."""
    torch.manual_seed(seed)
    widths = torch.randint(1, 9, (4,)).tolist()
    layers = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bool(seed % 2)), activation()]
    network = nn.Sequential(*layers[:-1]).double()
    lead = () if runs is None else (runs,)
    x = torch.randn(*lead, SAMPLES, widths[0]).double()
    y = torch.randint(widths[-1], (*lead, SAMPLES))
    tensors = {
        name: torch.randn(*lead, *parameter.shape).double().requires_grad_()
        for name, parameter in network.named_parameters()
    }
    return network, x, y, tensors


def gradient_rows(network, tensors, x, y):
    """Compute per-sample gradients one by one, by layer, shape ``(n, parameter)``."""
    tensors = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    layer_of = {name: name.rpartition(".")[0] for name in tensors}
    rows = {layer: [] for layer in layer_of.values()}
    for x_i, y_i in zip(x.split(1), y.split(1), strict=True):
        loss = cross_entropy(functional_call(network, tensors, (x_i,)), y_i).sum()
        gradients = torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True)
        for layer, layer_rows in rows.items():
            parts = [
                gradient.flatten()
                for name, gradient in zip(tensors, gradients, strict=True)
                if layer_of[name] == layer
            ]
            layer_rows.append(torch.cat(parts))
    return {layer: torch.stack(layer_rows) for layer, layer_rows in rows.items()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_gram_matrix_of_each_layer_equals_per_sample_gradient_products(activation, seed):
    network, x, y, _ = random_mlp(seed, activation)
    expected = gradient_rows(network, dict(network.named_parameters()), x, y)
    grams = gram_matrices(network, x, y, cross_entropy)
    assert list(grams) == list(expected)
    for layer, rows in expected.items():
        gram = rows @ rows.T / SAMPLES
        torch.testing.assert_close(grams[layer], gram, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_gram_matrices_of_stacked_runs_equal_those_of_single_runs(activation, seed):
    network, x, y, tensors = random_mlp(seed, activation, runs=3)
    grams = gram_matrices(network, x, y, cross_entropy, tensors)
    for run in range(3):
        tensors_of_run = {name: tensor[run] for name, tensor in tensors.items()}
        for layer, rows in gradient_rows(network, tensors_of_run, x[run], y[run]).items():
            gram = rows @ rows.T / SAMPLES
            torch.testing.assert_close(grams[layer][run], gram, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_eigenvalues_equal_those_of_the_dense_fisher(activation, seed):
    network, x, y, _ = random_mlp(seed, activation)
    rows_by_layer = gradient_rows(network, dict(network.named_parameters()), x, y)
    rows = torch.cat(list(rows_by_layer.values()), dim=1)
    dense = eigenvalues(rows.T @ rows / SAMPLES)
    values = eigenvalues(sum(gram_matrices(network, x, y, cross_entropy).values()))
    large = dense[dense > 1e-8 * dense[0]]
    assert len(large) <= SAMPLES
    assert (values[: len(large)] / large - 1).abs().le(1e-6).all()
    assert (values[len(large) :] <= 2e-8 * dense[0]).all()


def test_trace_is_the_mean_squared_gradient_norm():
    network, x, y, _ = random_mlp(3, nn.Tanh)
    rows_by_layer = gradient_rows(network, dict(network.named_parameters()), x, y)
    norms = [rows.square().sum(dim=1) for rows in rows_by_layer.values()]
    trace = sum(gram.trace() for gram in gram_matrices(network, x, y, cross_entropy).values())
    assert trace.item() == pytest.approx(sum(norms).mean().item(), rel=1e-12)


# Tiny networks: options, and the shape of an image.
KINDS = {
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


def random_network(kind, activation, seed, samples=SAMPLES):
    """Draw all parameters of a network in eval mode, inputs and targets."""
    options, shape = KINDS[kind]
    config = Network(kind.partition(",")[0], activation, options=options)
    network = architecture.build(config, shape, 3).double().eval()
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.3, parameter[0].numel() ** -0.5))
    return network, torch.randn(samples, *shape).double(), torch.randint(3, (samples,))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=min(12, settings().max_examples))
@given(
    activation=st.sampled_from(sorted(activations.ACTIVATIONS)),
    seed=st.integers(0, 9),
    samples=st.integers(4, 6),
)
def test_gram_matrices_of_every_architecture_equal_per_sample_gradient_products(
    kind, activation, seed, samples
):
    network, x, y = random_network(kind, activation, seed, samples)
    grams = gram_matrices(network, x, y, cross_entropy)
    network = with_explicit_norms(network, x)
    expected = gradient_rows(network, dict(network.named_parameters()), x, y)
    assert grams.keys() == expected.keys()
    for layer, rows in expected.items():
        gram = rows @ rows.T / samples
        torch.testing.assert_close(
            grams[layer], gram, rtol=1e-7, atol=1e-9 * (1 + gram.abs().max().item())
        )


@pytest.mark.parametrize("tokens", [1, 2, 3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_gram_matrix_of_a_linear_layer_is_exact_for_few_and_many_tokens(tokens, bias):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(20, 30, bias=bias), nn.Tanh(), nn.Flatten(), nn.Linear(30 * tokens, 3)
    ).double()
    x, y = torch.randn(SAMPLES, tokens, 20).double(), torch.randint(3, (SAMPLES,))
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(
        gram_matrices(network, x, y, cross_entropy)["0"],
        rows @ rows.T / SAMPLES,
        rtol=1e-10,
        atol=1e-13,
    )


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"padding": 2}, {"dilation": 2}, {"stride": (1, 3), "padding": (0, 1)}],
)
def test_gram_matrix_of_a_convolution_is_exact_for_any_stride_padding_and_dilation(options):
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, 4, (3, 2), **options),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ]
    network = nn.Sequential(*layers).double()
    x = torch.randn(SAMPLES, 2, 8, 7).double()
    y = torch.randint(3, (SAMPLES,))
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(
        gram_matrices(network, x, y, cross_entropy)["0"],
        rows @ rows.T / SAMPLES,
        rtol=1e-10,
        atol=1e-13,
    )


@pytest.mark.parametrize("activation", ["tanh", "crelu", "fourier", "gelu"])
@pytest.mark.parametrize("kind", ["mlp", "mlp, layer"])
def test_gram_matrices_of_stacked_mlps_equal_those_of_single_mlps(kind, activation):
    runs = [random_network(kind, activation, seed) for seed in range(3)]
    networks, inputs, targets = zip(*runs, strict=True)
    parameters = [dict(network.named_parameters()) for network in networks]
    tensors = {
        name: torch.stack([of_run[name].detach() for of_run in parameters]).requires_grad_()
        for name in parameters[0]
    }
    x, y = torch.stack(inputs), torch.stack(targets)
    grams = gram_matrices(networks[0], x, y, cross_entropy, tensors)
    for run, (network, x_of_run, y_of_run) in enumerate(runs):
        expected = gram_matrices(network, x_of_run, y_of_run, cross_entropy)
        assert grams.keys() == expected.keys()
        for layer, gram in expected.items():
            torch.testing.assert_close(grams[layer][run], gram, rtol=1e-10, atol=1e-13)


class Net(nn.Module):
    """A network made of layers and a function that calls them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.call = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.call(self, x)


class Scale(nn.Module):
    """A custom layer with a scalar and a vector."""

    def __init__(self):
        super().__init__()
        self.factor, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        return self.factor * x + self.shift


class Scaled(nn.Linear):
    """A subclass of a linear layer that computes something else."""

    def forward(self, x):
        return 3 * super().forward(x)


def tied():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 3))
    network[2].weight = network[0].weight
    return network


def normed():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    network(torch.randn(9, 3))
    return network


def with_frozen_bias():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    network[0].bias.requires_grad_(False)
    return network


def by_its_norm():
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    nn.utils.parametrizations.weight_norm(network[0])
    return network


MULTIHEAD = {"embed_dim": 3, "num_heads": 1, "batch_first": True}
# A network, the shape of its input, and the layers that the warning names.
UNCOVERED = {
    "a convolution of sequences": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3)),
        (2, 3),
        ["0 (Conv1d)"],
    ),
    "a grouped convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 2, groups=2), nn.Flatten(), nn.Linear(8, 3)),
        (2, 3, 3),
        ["0 (Conv2d)"],
    ),
    "a convolution with reflected edges": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(18, 3)
        ),
        (1, 3, 3),
        ["0 (Conv2d)"],
    ),
    "a custom layer": (
        lambda: nn.Sequential(nn.Linear(3, 3), Scale(), nn.Linear(3, 3)),
        (3,),
        ["1 (Scale)"],
    ),
    "a class made from a linear layer": (
        lambda: nn.Sequential(Scaled(3, 3), nn.Tanh(), nn.Linear(3, 3)),
        (3,),
        ["0 (Scaled)"],
    ),
    "a learned slope": (lambda: nn.Sequential(nn.Linear(3, 3), nn.PReLU()), (3,), ["1 (PReLU)"]),
    "a layer that is called twice": (
        lambda: Net(
            lambda net, x: net.last(net.layer(torch.tanh(net.layer(x)))),
            layer=nn.Linear(3, 3),
            last=nn.Linear(3, 3),
        ),
        (3,),
        ["layer (Linear)"],
    ),
    "a weight that is also used elsewhere": (
        lambda: Net(
            lambda net, x: torch.tanh(net.layer(x)) @ net.layer.weight, layer=nn.Linear(3, 3)
        ),
        (3,),
        ["layer (Linear)"],
    ),
    "a layer that is never called": (
        lambda: Net(lambda net, x: net.layer(x), layer=nn.Linear(3, 3), idle=nn.Linear(3, 3)),
        (3,),
        ["idle (Linear)"],
    ),
    "tied weights": (tied, (3,), ["0 (Linear)", "2 (Linear)"]),
    "torch's batch norm": (normed, (3,), ["1 (BatchNorm1d)"]),
    "a norm without a bias": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3, bias=False)),
        (3,),
        ["1 (LayerNorm)"],
    ),
    "a frozen bias": (with_frozen_bias, (3,), ["0 (Linear)"]),
    "a weight by its norm and direction": (
        by_its_norm,
        (3,),
        ["0 (ParametrizedLinear)", "0.parametrizations.weight (ParametrizationList)"],
    ),
    "torch's attention": (
        lambda: Net(
            lambda net, x: net.last(net.attention(x, x, x, need_weights=False)[0].mean(1)),
            attention=nn.MultiheadAttention(**MULTIHEAD),
            last=nn.Linear(3, 3),
        ),
        (2, 3),
        ["attention (MultiheadAttention)", "attention.out_proj (NonDynamicallyQuantizableLinear)"],
    ),
    "a recurrent layer": (
        lambda: Net(
            lambda net, x: net.last(net.cell(x)[0][:, -1]),
            cell=nn.GRU(3, 2, batch_first=True),
            last=nn.Linear(2, 3),
        ),
        (2, 3),
        ["cell (GRU)"],
    ),
    "an embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 3)),
        (2,),
        ["0 (Embedding)"],
    ),
    "samples that are not in front": (
        lambda: Net(
            lambda net, x: net.last(torch.tanh(net.first(x.transpose(0, 1))).mean(0)),
            first=nn.Linear(3, 4),
            last=nn.Linear(4, 3),
        ),
        (2, 3),
        ["first (Linear)"],
    ),
}


@pytest.mark.parametrize("kind", UNCOVERED)
def test_layers_without_an_identity_have_exact_gram_matrices_and_a_warning_names_them(kind, caplog):
    log.warn_once.cache_clear()
    torch.manual_seed(0)
    make, shape, names = UNCOVERED[kind]
    network, x, y = make().double().eval(), torch.randn(5, *shape).double(), torch.randint(3, (5,))
    if kind == "an embedding":
        x = torch.randint(7, x.shape)
    grams = fisher.Operator(network, x, y, cross_entropy).gram_matrices()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    expected = {
        layer: rows @ rows.T / 5 for layer, rows in gradient_rows(network, trainable, x, y).items()
    }
    assert list(grams) == list(expected)
    for layer, gram in expected.items():
        torch.testing.assert_close(grams[layer], gram, rtol=1e-10, atol=1e-13)
    total = sum(expected.values())
    torch.testing.assert_close(grams.over(grams), total, rtol=1e-10, atol=1e-13)
    warning = "their gradients are computed sample by sample, which is slower"
    assert caplog.messages == [f"no identity covers {', '.join(names)}: {warning}"]


def test_in_place_activations_leave_gram_matrices_equal():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)
    ).double()
    x, y = torch.randn(5, 3).double(), torch.randint(3, (5,))
    expected = gram_matrices(network, x, y, cross_entropy)
    network[1].inplace = True
    for layer, gram in gram_matrices(network, x, y, cross_entropy).items():
        torch.testing.assert_close(gram, expected[layer], rtol=1e-12, atol=1e-14)


def test_gram_matrices_of_stacked_runs_leave_out_frozen_parameters():
    network, x, y, tensors = random_mlp(1, nn.Tanh, runs=3)
    network[0].bias.requires_grad_(False)
    tensors["0.bias"] = tensors["0.bias"].detach()
    grams = gram_matrices(network, x, y, cross_entropy, tensors)
    for run in range(3):
        tensors_of_run = {name: tensor[run] for name, tensor in tensors.items()}
        rows = gradient_rows(network, tensors_of_run, x[run], y[run])
        rows["0"] = rows["0"][:, : network[0].weight.numel()]
        for layer, gram in grams.items():
            torch.testing.assert_close(
                gram[run], rows[layer] @ rows[layer].T / SAMPLES, rtol=1e-11, atol=1e-13
            )


def test_stacked_runs_of_a_network_that_does_not_broadcast_are_refused():
    network, x, y = random_network("vit", "relu", 0)
    tensors = {name: parameter[None] for name, parameter in network.named_parameters()}
    with pytest.raises(
        StudyError, match="does not broadcast over a run dimension: measure its runs one after"
    ):
        gram_matrices(network, x[None], y[None], cross_entropy, tensors)


def test_run_with_nan_parameters_leaves_other_runs_unchanged():
    network, x, y, tensors = random_mlp(1, nn.ReLU, runs=3)
    healthy = gram_matrices(network, x, y, cross_entropy, tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor[1] = torch.nan
    for layer, gram in gram_matrices(network, x, y, cross_entropy, tensors).items():
        assert gram[1].isnan().all()
        assert torch.equal(gram[[0, 2]], healthy[layer][[0, 2]])


def test_hooks_are_removed_even_if_the_loss_fails():
    network, x, y, _ = random_mlp(1, nn.ReLU)
    gram_matrices(network, x, y, cross_entropy)
    with pytest.raises(ZeroDivisionError):
        gram_matrices(network, x, y, lambda outputs, targets: 1 / 0)
    assert not any(layer._forward_hooks for layer in network.modules())
