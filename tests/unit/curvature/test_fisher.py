"""The Gram identity against gradients taken one sample at a time, in float64, on drawn networks."""

from itertools import pairwise

import pytest
import torch
from dense import written_out
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


def gram_blocks(*arguments):
    return dict(fisher.Operator(*arguments).grams())


def drawn(seed, activation, runs=None):
    """A network with or without biases, its inputs and targets; with `runs`, a set of each per run."""
    torch.manual_seed(seed)
    widths = torch.randint(1, 9, (4,)).tolist()
    layers = [
        m for a, b in pairwise(widths) for m in (nn.Linear(a, b, bias=bool(seed % 2)), activation())
    ]
    network = nn.Sequential(*layers[:-1]).double()
    lead = () if runs is None else (runs,)
    x, y = (
        torch.randn(*lead, SAMPLES, widths[0]).double(),
        torch.randint(widths[-1], (*lead, SAMPLES)),
    )
    tensors = {
        name: torch.randn(*lead, *parameter.shape).double().requires_grad_()
        for name, parameter in network.named_parameters()
    }
    return network, x, y, tensors


def gradient_rows(network, tensors, x, y):
    """Each sample's gradient of its loss, by layer, shape ``(n, parameter)``."""
    tensors = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    samples = []
    for i in range(len(x)):
        loss = cross_entropy(functional_call(network, tensors, (x[i : i + 1],)), y[i : i + 1]).sum()
        samples.append(
            dict(
                zip(
                    tensors,
                    torch.autograd.grad(loss, list(tensors.values()), materialize_grads=True),
                    strict=True,
                )
            )
        )
    layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    return {
        layer: torch.stack(
            [
                torch.cat(
                    [g.flatten() for name, g in sample.items() if name.rpartition(".")[0] == layer]
                )
                for sample in samples
            ]
        )
        for layer in layers
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_each_gram_block_is_that_of_the_layers_per_sample_gradients(activation, seed):
    network, x, y, _ = drawn(seed, activation)
    expected = {
        layer: rows @ rows.T / SAMPLES
        for layer, rows in gradient_rows(network, dict(network.named_parameters()), x, y).items()
    }
    grams = gram_blocks(network, x, y, cross_entropy)
    assert list(grams) == list(expected)
    for layer, gram in grams.items():
        torch.testing.assert_close(gram, expected[layer], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_stacked_runs_have_the_grams_of_each_alone(activation, seed):
    network, x, y, tensors = drawn(seed, activation, runs=3)
    grams = gram_blocks(network, x, y, cross_entropy, tensors)
    for run in range(3):
        alone = {name: tensor[run] for name, tensor in tensors.items()}
        for layer, rows in gradient_rows(network, alone, x[run], y[run]).items():
            torch.testing.assert_close(
                grams[layer][run], rows @ rows.T / SAMPLES, rtol=1e-11, atol=1e-13
            )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(6))
def test_eigenvalues_are_those_of_the_fisher_formed_densely(activation, seed):
    network, x, y, _ = drawn(seed, activation)
    rows = torch.cat(
        list(gradient_rows(network, dict(network.named_parameters()), x, y).values()), dim=1
    )
    dense = eigenvalues(rows.T @ rows / SAMPLES)
    found = eigenvalues(sum(gram_blocks(network, x, y, cross_entropy).values()))
    large = dense[dense > 1e-8 * dense[0]]
    assert len(large) <= SAMPLES
    assert (found[: len(large)] / large - 1).abs().le(1e-6).all()
    assert (found[len(large) :] <= 2e-8 * dense[0]).all()


def test_the_trace_is_the_mean_squared_gradient_norm():
    network, x, y, _ = drawn(3, nn.Tanh)
    norms = [
        rows.square().sum(dim=1)
        for rows in gradient_rows(network, dict(network.named_parameters()), x, y).values()
    ]
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
    network = (
        architecture.build(Network(kind.partition(",")[0], activation, options=options), shape, 3)
        .double()
        .eval()
    )
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.3, parameter[0].numel() ** -0.5))
    return network, torch.randn(samples, *shape).double(), torch.randint(3, (samples,))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=min(12, settings().max_examples))
@given(
    activation=st.sampled_from(sorted(activations.KINDS)),
    seed=st.integers(0, 9),
    samples=st.integers(4, 6),
)
def test_the_gram_blocks_of_every_network_are_those_of_gradients_taken_one_sample_at_a_time(
    kind, activation, seed, samples
):
    network, x, y = built(kind, activation, seed, samples)
    grams = gram_blocks(network, x, y, cross_entropy)
    network = written_out(network, x)
    expected = gradient_rows(network, dict(network.named_parameters()), x, y)
    assert grams.keys() == expected.keys()
    for layer, rows in expected.items():
        gram = rows @ rows.T / samples
        torch.testing.assert_close(
            grams[layer], gram, rtol=1e-7, atol=1e-9 * (1 + gram.abs().max().item())
        )


@pytest.mark.parametrize("tokens", [1, 2, 3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_few_tokens_and_on_many_has_the_gram_of_its_gradients(tokens, bias):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(20, 30, bias=bias), nn.Tanh(), nn.Flatten(), nn.Linear(30 * tokens, 3)
    ).double()
    x, y = torch.randn(SAMPLES, tokens, 20).double(), torch.randint(3, (SAMPLES,))
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(
        gram_blocks(network, x, y, cross_entropy)["0"],
        rows @ rows.T / SAMPLES,
        rtol=1e-10,
        atol=1e-13,
    )


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"padding": 2}, {"dilation": 2}, {"stride": (1, 3), "padding": (0, 1)}],
)
def test_a_convolution_of_any_stride_padding_and_dilation_has_the_gram_of_its_gradients(options):
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, 4, (3, 2), **options),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ]
    network, x, y = (
        nn.Sequential(*layers).double(),
        torch.randn(SAMPLES, 2, 8, 7).double(),
        torch.randint(3, (SAMPLES,)),
    )
    rows = gradient_rows(network, dict(network.named_parameters()), x, y)["0"]
    torch.testing.assert_close(
        gram_blocks(network, x, y, cross_entropy)["0"],
        rows @ rows.T / SAMPLES,
        rtol=1e-10,
        atol=1e-13,
    )


@pytest.mark.parametrize("activation", ["tanh", "crelu", "fourier", "gelu"])
@pytest.mark.parametrize("kind", ["mlp", "mlp, layer"])
def test_stacked_runs_of_an_mlp_have_the_grams_of_each_alone_with_those_of_its_norms(
    kind, activation
):
    network, _, _ = built(kind, activation, 0)
    drawn = [built(kind, activation, seed) for seed in range(3)]
    tensors = {
        name: torch.stack([dict(one.named_parameters())[name].detach() for one, *_ in drawn])
        for name, _ in network.named_parameters()
    }
    x, y = (torch.stack([values[place] for values in drawn]) for place in (1, 2))
    grams = gram_blocks(
        network,
        x,
        y,
        cross_entropy,
        {name: tensor.requires_grad_() for name, tensor in tensors.items()},
    )
    for run, (alone, own, targets) in enumerate(drawn):
        expected = gram_blocks(alone, own, targets, cross_entropy)
        assert grams.keys() == expected.keys()
        for layer, gram in expected.items():
            torch.testing.assert_close(grams[layer][run], gram, rtol=1e-10, atol=1e-13)


class Net(nn.Module):
    """A network of some layers and a function that calls them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.call = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.call(self, x)


class Scale(nn.Module):
    """Parameters of which torch knows no layer, in two shapes."""

    def __init__(self):
        super().__init__()
        self.factor, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        return self.factor * x + self.shift


class Scaled(nn.Linear):
    """A linear layer that is none."""

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
UNCOVERED = {  # a network, the shape of what it sees, and the layers that the warning names
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
def test_layers_that_no_identity_covers_have_the_grams_of_their_gradients_and_a_warning_names_them(
    kind, caplog
):
    log.warn_once.cache_clear()
    torch.manual_seed(0)
    make, shape, names = UNCOVERED[kind]
    network, x, y = make().double().eval(), torch.randn(5, *shape).double(), torch.randint(3, (5,))
    if kind == "an embedding":
        x = torch.randint(7, x.shape)
    found = fisher.Operator(network, x, y, cross_entropy).grams()
    expected = gradient_rows(
        network, {name: p for name, p in network.named_parameters() if p.requires_grad}, x, y
    )
    assert list(found) == list(expected)
    for layer, rows in expected.items():
        torch.testing.assert_close(found[layer], rows @ rows.T / 5, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(
        found.over(found),
        sum(rows @ rows.T / 5 for rows in expected.values()),
        rtol=1e-10,
        atol=1e-13,
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"no identity covers {', '.join(names)}: these gradients are taken sample by sample, which is slower"
    ]


def test_activations_in_place_change_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)
    ).double()
    x, y = torch.randn(5, 3).double(), torch.randint(3, (5,))
    expected = gram_blocks(network, x, y, cross_entropy)
    network[1].inplace = True
    for layer, gram in gram_blocks(network, x, y, cross_entropy).items():
        torch.testing.assert_close(gram, expected[layer], rtol=1e-12, atol=1e-14)


def test_frozen_parameters_of_runs_leave_the_others_grams_as_they_are_alone():
    network, x, y, tensors = drawn(1, nn.Tanh, runs=3)
    network[0].bias.requires_grad_(False)
    tensors["0.bias"] = tensors["0.bias"].detach()
    found = gram_blocks(network, x, y, cross_entropy, tensors)
    for run in range(3):
        alone = {name: tensor[run] for name, tensor in tensors.items()}
        rows = gradient_rows(network, alone, x[run], y[run])
        rows["0"] = rows["0"][:, : network[0].weight.numel()]
        for layer, gram in found.items():
            torch.testing.assert_close(
                gram[run], rows[layer] @ rows[layer].T / SAMPLES, rtol=1e-11, atol=1e-13
            )


def test_stacked_runs_of_a_network_that_does_not_broadcast_are_refused():
    network, x, y = built("vit", "relu", 0)
    tensors = {name: parameter[None] for name, parameter in network.named_parameters()}
    with pytest.raises(StudyError, match="does not broadcast: its runs come one after the other"):
        gram_blocks(network, x[None], y[None], cross_entropy, tensors)


def test_a_run_of_nan_harms_no_other():
    network, x, y, tensors = drawn(1, nn.ReLU, runs=3)
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
