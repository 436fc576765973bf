"""An ensemble against the network of each run alone, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from plasticity.config.models import Network
from plasticity.models import activations, architecture
from plasticity.models.ensemble import Parameters, forward, is_batchable, rows

RUNS, SAMPLES = 4, 6


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, inputs):
        return self.layer(torch.tanh(self.layer(inputs.flatten(-3))))


class Residual(nn.Module):
    """A custom module with a shortcut, and a parameter that nothing is computed with."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2, 3))
        self.layer = nn.Linear(6, 6)

    def forward(self, inputs):
        inputs = inputs.flatten(-3)
        return inputs + torch.tanh(self.layer(inputs))


def mlp(activation=nn.Tanh, bias=True):
    return nn.Sequential(nn.Flatten(-3), nn.Linear(6, 5, bias=bias), activation(), nn.Linear(5, 3))


def normalised(activation=nn.Tanh):
    layers = [
        nn.LayerNorm(6),
        nn.Linear(6, 5),
        nn.LayerNorm(5, eps=0.1),
        activation(),
        nn.Linear(5, 3),
        nn.LayerNorm(3),
    ]
    return nn.Sequential(nn.Flatten(-3), *layers)


def built(kind, activation, shape=(1, 2, 3), **options):
    return lambda: architecture.build(
        Network(kind, activation, options={"width": 4} | options), shape, 2
    )


def shared():
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(-3), layer, nn.Tanh(), layer)


def convolutions():
    layers = [
        nn.Conv2d(1, 3, 2, padding=1),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(*layers, nn.Flatten(-3), nn.Linear(6, 2))


NETWORKS = {
    **{name: built("mlp", name, width=5, depth=1) for name in activations.ACTIVATIONS},
    "layer norm": normalised,
    "mlp with layer norm": built("mlp", "fourier", depth=2, norm="layer"),
    "mlp with batch norm": built("mlp", "crelu", depth=2, norm="batch"),
    "vit": built("vit", "gelu", patch=1, depth=1, heads=2),
    "resnet18": built("resnet18", "crelu", width=1, norm="layer"),
    "no bias": lambda: mlp(bias=False),
    "nested": lambda: nn.Sequential(mlp(), nn.Tanh(), nn.Sequential(nn.Linear(3, 2), nn.GELU())),
    "shared layer": shared,
    "called twice": Twice,
    "custom": Residual,
    "convolution": convolutions,
}


@pytest.fixture(params=NETWORKS)
def example(request):
    """A network of each kind, its runs' parameters, and their inputs."""
    return drawn(NETWORKS[request.param]())


def drawn(network):
    torch.manual_seed(0)
    network = network.double()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    flat = torch.randn(RUNS, sum(parameter.numel() for parameter in network.parameters())).double()
    return network, Parameters(flat, shapes), torch.randn(RUNS, SAMPLES, 1, 2, 3).double()


def alone(network, parameters, run):
    """One run's parameters by name, cut from its row by hand."""
    tensors, start = {}, 0
    for name, parameter in network.named_parameters():
        tensors[name] = (
            parameters.flat.detach()[run, start : start + parameter.numel()]
            .clone()
            .view(parameter.shape)
            .requires_grad_()
        )
        start += parameter.numel()
    return tensors


def squares(outputs):
    """A loss of each sample, shape ``(…, n)``, steep in every output."""
    return (outputs - torch.linspace(-1, 2, outputs.shape[-1])).square().sum(dim=-1)


def gradient(parameters, network, inputs, *penalties):
    return parameters.gradient(lambda: (squares(network(inputs)), penalties)).clone()


def test_outputs_equal_those_of_each_run_alone(example):
    network, parameters, inputs = example
    bound, function = parameters.bind(network)(inputs), forward(network, parameters.tensors, inputs)
    assert bound.shape[:2] == (RUNS, SAMPLES)
    for run in range(RUNS):
        expected = functional_call(network, alone(network, parameters, run), (inputs[run],))
        torch.testing.assert_close(bound[run], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(function[run], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("penalised", [False, True])
def test_gradients_equal_those_of_each_run_alone(example, penalised):
    network, parameters, inputs = example
    penalties = [parameters.flat.pow(4).sum(dim=1)] if penalised else []
    found = gradient(parameters, parameters.bind(network), inputs, *penalties)
    for run in range(RUNS):
        tensors = alone(network, parameters, run)
        loss = squares(functional_call(network, tensors, (inputs[run],))).mean()
        loss = loss + penalised * sum(tensor.pow(4).sum() for tensor in tensors.values())
        derivatives = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
        expected = [
            torch.zeros_like(w) if derivative is None else derivative
            for w, derivative in zip(tensors.values(), derivatives, strict=True)
        ]
        torch.testing.assert_close(
            found[run], torch.cat([part.flatten() for part in expected]), rtol=1e-11, atol=1e-11
        )


def test_gradients_through_forward_equal_those_through_a_bound_network(example):
    network, parameters, inputs = example
    through_function = gradient(
        parameters, lambda inputs: forward(network, parameters.tensors, inputs), inputs
    )
    torch.testing.assert_close(
        gradient(parameters, parameters.bind(network), inputs),
        through_function,
        rtol=1e-12,
        atol=1e-12,
    )


def test_penalty_on_flat_equals_penalty_on_tensors():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    plain = gradient(parameters, bound, inputs)

    def added(flat_share, tensor_share):
        penalties = flat_share * parameters.flat.pow(3).sum(dim=1)
        penalties = penalties + tensor_share * sum(
            tensor.flatten(1).pow(3).sum(dim=1) for tensor in parameters.tensors.values()
        )
        return gradient(parameters, bound, inputs, penalties) - plain

    for shares in ((1, 0), (0, 1), (0.5, 0.5)):
        torch.testing.assert_close(
            added(*shares), 3 * parameters.flat.detach().square(), rtol=1e-9, atol=1e-9
        )


def test_penalty_on_one_tensor_changes_only_its_gradient():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    added = gradient(parameters, bound, inputs, parameters.tensors["3.bias"].sum(dim=1)) - gradient(
        parameters, bound, inputs
    )
    assert not added[:, :-3].any()
    torch.testing.assert_close(added[:, -3:], torch.ones(RUNS, 3).double(), rtol=0, atol=1e-12)


def test_unused_parameters_have_zero_gradient():
    network, parameters, inputs = drawn(Residual())
    parameters.padded_gradient.fill_(7)
    found = gradient(parameters, parameters.bind(network), inputs)
    assert not found[:, :6].any()
    assert found[:, 6:].all()


def test_gradient_does_not_depend_on_the_previous_one(example):
    network, parameters, inputs = example
    bound = parameters.bind(network)
    first = gradient(parameters, bound, inputs)
    gradient(parameters, bound, 3 * inputs, parameters.flat.square().sum(dim=1))
    assert torch.equal(gradient(parameters, bound, inputs), first)


def test_calls_without_gradients_do_not_change_the_next_gradient(example):
    network, parameters, inputs = example
    bound = parameters.bind(network)
    first = gradient(parameters, bound, inputs)
    with torch.no_grad():
        bound(3 * inputs)
    assert torch.equal(gradient(parameters, bound, inputs), first)


def test_padding_columns_have_zero_gradient(example):
    network, parameters, inputs = example
    gradient(parameters, parameters.bind(network), inputs, parameters.flat.square().sum(dim=1))
    width = parameters.flat.shape[1]
    assert parameters.padded.shape == parameters.padded_gradient.shape
    assert parameters.padded.shape[1] % 16 == 0
    assert not parameters.padded_gradient[:, width:].any()
    assert not parameters.padded[:, width:].any()


def calls_of_linear(monkeypatch, network, inputs):
    """Shapes of the inputs that torch's own linear function is called with."""
    seen, linear = [], nn.functional.linear
    with monkeypatch.context() as patch:
        patch.setattr(
            nn.functional,
            "linear",
            lambda x, *rest: seen.append(tuple(x.shape)) or linear(x, *rest),
        )
        network(inputs)
    return seen


def test_sequential_networks_are_batched_and_others_are_computed_run_by_run(
    monkeypatch,
):
    def calls(network):
        network, parameters, inputs = drawn(network)
        return calls_of_linear(monkeypatch, parameters.bind(network), inputs)

    assert calls(mlp()) == []  # replaced whole
    for network in (shared(), Twice()):
        assert calls(network) == [(SAMPLES, 6)] * 2 * RUNS
    assert calls(Residual()) == [(SAMPLES, 6)] * RUNS


@pytest.mark.parametrize("network", [Residual, convolutions])
def test_other_networks_are_vmapped_unless_on_a_cpu(monkeypatch, network):
    network, parameters, inputs = drawn(network())
    shapes = {name: tensor.shape[1:] for name, tensor in parameters.tensors.items()}
    bound = Parameters(parameters.flat.detach().to("meta"), shapes).bind(network)
    assert bound(inputs.to("meta")).shape == parameters.bind(network)(inputs).shape
    assert calls_of_linear(monkeypatch, bound, inputs.to("meta")) == [(SAMPLES, 6)]


def test_vmapped_outputs_equal_sequential_outputs(example):
    network, parameters, inputs = example
    at_once = torch.vmap(lambda tensors, x: functional_call(network, tensors, (x,)))(
        parameters.tensors, inputs
    )
    torch.testing.assert_close(
        at_once, forward(network, parameters.tensors, inputs), rtol=1e-12, atol=1e-12
    )


def test_bound_networks_and_tensors_share_memory_with_flat():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    before = bound(inputs)
    storage = parameters.flat.untyped_storage().data_ptr()
    assert all(
        tensor.untyped_storage().data_ptr() == storage for tensor in parameters.tensors.values()
    )
    with torch.no_grad():
        parameters.flat[2] += 1
        afterwards = bound(inputs), forward(network, parameters.tensors, inputs)
    for after in afterwards:
        assert (after != before).flatten(1).any(dim=1).tolist() == [False, False, True, False]


def test_rows_is_the_inverse_of_tensors():
    _, parameters, _ = drawn(mlp())
    runs = [
        {name: tensor[run] for name, tensor in parameters.tensors.items()} for run in range(RUNS)
    ]
    assert torch.equal(rows(runs), parameters.flat)


@pytest.mark.parametrize("network", [mlp, Twice, convolutions])
def test_parameters_of_the_network_itself_are_not_used(network):
    network, parameters, inputs = drawn(network())
    bound = parameters.bind(network)
    before = forward(network, parameters.tensors, inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(forward(network, parameters.tensors, inputs), before)
    assert torch.equal(bound(inputs), before)
    assert all(parameter.isnan().all() for parameter in network.parameters())


def test_binding_does_not_change_the_network():
    network, parameters, inputs = drawn(mlp())
    before = network(inputs[0])
    parameters.bind(network)
    assert torch.equal(network(inputs[0]), before)


def test_nan_run_does_not_change_gradients_of_others(example):
    network, parameters, inputs = example
    bound = parameters.bind(network)
    healthy = gradient(parameters, bound, inputs)
    with torch.no_grad():
        parameters.flat[1] = torch.nan
    found = gradient(parameters, bound, inputs)
    assert found[1].isnan().any()
    assert torch.equal(found[[0, 2, 3]], healthy[[0, 2, 3]])


def test_lower_precision_gives_near_gradients_in_the_dtype_of_parameters():
    network, parameters, inputs = drawn(mlp())
    parameters = Parameters(
        parameters.flat.detach().float(),
        {name: tensor.shape[1:] for name, tensor in parameters.tensors.items()},
    )
    bound, inputs = parameters.bind(network), inputs.float()
    exact = gradient(parameters, bound, inputs)

    def objective():
        with torch.autocast("cpu", torch.bfloat16):
            outputs = bound(inputs)
        assert outputs.dtype == torch.bfloat16
        return squares(outputs.float()), []

    near = parameters.gradient(objective)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0.05, atol=0.05 * exact.abs().max().item())


def test_objective_that_calls_the_network_twice_with_gradients_is_refused():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    expected = gradient(parameters, bound, inputs)

    def look_then_call():
        with torch.no_grad():
            bound(3 * inputs)
        return squares(bound(inputs)), []

    def call_twice():
        return squares(bound(3 * inputs)) + squares(bound(inputs)), []

    with pytest.raises(RuntimeError, match="called a bound network twice"):
        parameters.gradient(call_twice)
    assert torch.equal(parameters.gradient(look_then_call), expected)


def test_call_outside_an_objective_is_followed_by_autograd():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    losses = squares(bound(inputs)).mean(dim=1)
    gradients = torch.autograd.grad(losses.sum(), list(parameters.tensors.values()))
    found = parameters.split(gradient(parameters, bound, inputs))
    for name, expected in zip(parameters.tensors, gradients, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


def test_failed_objective_does_not_change_the_next_gradient():
    network, parameters, inputs = drawn(mlp())
    bound = parameters.bind(network)
    expected = gradient(parameters, bound, inputs)

    def fail():
        bound(3 * inputs)
        raise KeyError

    with pytest.raises(KeyError):
        parameters.gradient(fail)
    assert torch.equal(gradient(parameters, bound, inputs), expected)


def test_gradients_of_tied_weights_are_right():
    layers = [nn.Linear(6, 6) for _ in range(2)]
    layers[1].weight = layers[0].weight
    network = nn.Sequential(nn.Flatten(-3), layers[0], nn.Tanh(), layers[1]).double()
    torch.manual_seed(0)
    parameters = Parameters(
        torch.randn(2, 48).double(),
        {name: tuple(value.shape) for name, value in network.named_parameters()},
    )
    inputs = torch.randn(2, 5, 1, 2, 3).double()
    bound = parameters.bind(network)
    gradient = parameters.gradient(lambda: (bound(inputs).square().sum(dim=2), [])).clone()
    for run in range(2):
        W, a, b = (
            tensor[run].detach().clone().requires_grad_() for tensor in parameters.tensors.values()
        )
        hidden = torch.tanh(inputs[run].flatten(1) @ W.T + a)
        found = torch.autograd.grad((hidden @ W.T + b).square().sum(dim=1).mean(), [W, a, b])
        torch.testing.assert_close(
            gradient[run], torch.cat([part.flatten() for part in found]), rtol=1e-11, atol=1e-11
        )


BROADCASTING = ["layer norm", "mlp with layer norm", *activations.ACTIVATIONS]


def test_linear_layers_and_layer_norms_of_units_broadcast_and_other_norms_do_not():
    assert all(is_batchable(NETWORKS[name]()) for name in BROADCASTING)
    assert not any(
        is_batchable(NETWORKS[name]())
        for name in ("mlp with batch norm", "vit", "resnet18", "convolution")
    )
    for norm in (
        nn.LayerNorm((2, 3)),
        nn.LayerNorm(3, bias=False),
        nn.LayerNorm(3, elementwise_affine=False),
    ):
        assert not is_batchable(nn.Sequential(norm))


def test_layer_norm_of_all_runs_is_one_call_without_weights(monkeypatch):
    network, parameters, inputs = drawn(normalised())
    seen, layer_norm = [], nn.functional.layer_norm

    def noted(x, shape, weight=None, bias=None, eps=1e-5):
        seen.append((tuple(x.shape), weight, bias, eps))
        return layer_norm(x, shape, weight, bias, eps)

    bound = parameters.bind(network)
    monkeypatch.setattr(nn.functional, "layer_norm", noted)
    bound(inputs)
    lead = (RUNS, SAMPLES)
    assert seen == [
        ((*lead, 6), None, None, 1e-5),
        ((*lead, 5), None, None, 0.1),
        ((*lead, 3), None, None, 1e-5),
    ]


@pytest.mark.parametrize("samples", [1, 2, 7, 16])
@pytest.mark.parametrize("width", [3, 16, 37])
@pytest.mark.parametrize(
    ("activation", "norm"),
    [
        *((name, "none") for name in activations.ACTIVATIONS),
        ("gelu", "layer"),
        ("fourier", "layer"),
    ],
)
def test_run_does_not_depend_on_its_row_or_on_other_runs(activation, norm, width, samples):
    network = built("mlp", activation, width=width, depth=2, norm=norm)()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    torch.manual_seed(0)
    flat = torch.randn(5, sum(parameter.numel() for parameter in network.parameters()))
    inputs = torch.randn(5, samples, 1, 2, 3)

    def numbers(runs):
        parameters = Parameters(flat[runs], shapes)
        bound = parameters.bind(network)
        with torch.no_grad():
            outputs = bound(inputs[runs])
        return (
            outputs,
            gradient(parameters, bound, inputs[runs]),
            forward(network, parameters.tensors, inputs[runs]),
        )

    together = numbers([0, 1, 2, 3, 4])
    for runs in ([4, 3, 2, 1, 0], [1, 4], [2]):
        for found, expected in zip(numbers(runs), together, strict=True):
            assert torch.equal(found, expected[runs])
