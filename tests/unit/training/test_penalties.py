"""Spectral, Parseval and L2-ER penalties and their gradients against definitions in numpy."""

import math

import numpy as np
import pytest
import torch
from ensembles import DEVIATIONS, deviation

from plasticity.config import registry
from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.curvature import spectrum
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.training.learner import Learner
from plasticity.training.method import build
from plasticity.training.methods.l2_er import entropy_rank

MLP = Network("mlp", "relu", options={"width": 5, "depth": 2, "norm": "layer"})
WIDE = Network(
    "mlp", "tanh", "pytorch", options={"width": 15, "depth": 2}
)  # layers with more outputs than inputs
CNN = Network("cnn", "crelu", "xavier", options={"width": 4, "norm": "batch"})
NETWORKS = [(MLP, ""), (WIDE, ""), (CNN, "flat"), (CNN, "places")]


def learner_of(network, runs=3, dtype=torch.float64):
    """Runs away from their initial parameters: no bias is 0, no gain 1."""
    shape = (1, 16, 16) if network.kind == "cnn" else (1, 3, 4)
    setting = Setting(
        Problem("tiny", "shuffle_labels", 20, 5, 1), network, Optimizer("adam", options={"lr": 0.1})
    )
    return Learner(
        setting,
        range(runs),
        architecture.build(network, shape, 2),
        shape,
        torch.device("cpu"),
        dtype,
    )


def moved(learner, seed):
    noise = torch.randn(
        learner.parameters.flat.shape,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    with torch.no_grad():
        learner.parameters.flat += 0.3 * noise


def build_method(method, arms, learner):
    return build(method, arms, learner)[method]


def penalty_and_gradient(intervention, learner):
    """The penalty and its gradient, as training takes it."""
    penalty = intervention.penalty(learner)
    losses = 0 * learner.parameters.tensors["output.bias"]
    gradient = learner.parameters.gradient(lambda: (losses, [penalty]))
    return penalty.detach().clone(), learner.parameters.split(gradient.clone())


def plain(learner, run):
    """A run's parameters in numpy, by name."""
    return {
        name: tensor[run].detach().numpy() for name, tensor in learner.parameters.tensors.items()
    }


def as_matrices(weight, kernels):
    """Ways into a weight, each of which takes one matrix out of it."""
    if weight.ndim == 2:
        return [(slice(None), slice(None))]
    rows, columns = range(weight.shape[2]), range(weight.shape[3])
    return (
        [(slice(None), slice(None), row, column) for row in rows for column in columns]
        if kernels == "places"
        else [slice(None)]
    )


def each_matrix(tensors, kernels):
    for name, weight in tensors.items():
        if weight.ndim > 1:
            for number, way in enumerate(as_matrices(weight, kernels)):
                yield (name, number), name, way, weight[way].reshape(len(weight), -1)


@pytest.mark.parametrize(("network", "kernels"), NETWORKS)
def test_spectral_equals_its_definition_with_one_power_iteration_per_step(network, kernels):
    learner = learner_of(network)
    arms = [
        {"strength": 0.5, "power": 2},
        {"strength": 2, "power": 1},
        {"strength": 0.1, "power": 3},
    ]
    intervention = build_method("spectral", [{**arm, "kernels": kernels} for arm in arms], learner)
    right = [{} for _ in arms]
    for step in range(3):
        moved(learner, step)
        values, gradients = penalty_and_gradient(intervention, learner)
        for run, arm in enumerate(arms):
            tensors, power = plain(learner, run), arm["power"]
            value, derivatives = (
                0.0,
                {name: np.zeros_like(tensor) for name, tensor in tensors.items()},
            )
            for key, name, way, W in each_matrix(tensors, kernels):
                v = right[run].get(key, np.ones(W.shape[1]) / math.sqrt(W.shape[1]))
                u = W @ v / np.linalg.norm(W @ v)
                v = right[run][key] = W.T @ u / np.linalg.norm(W.T @ u)
                sigma = u @ W @ v
                value += (sigma**power - 1) ** 2
                derivatives[name][way] += (
                    2 * (sigma**power - 1) * power * sigma ** (power - 1) * np.outer(u, v)
                ).reshape(derivatives[name][way].shape)
            for name, tensor in tensors.items():
                if name.endswith("bias"):
                    value += (tensor @ tensor) ** power
                    derivatives[name] += power * (tensor @ tensor) ** (power - 1) * 2 * tensor
                elif name.startswith("norm"):
                    i = np.abs(tensor).argmax()
                    largest = abs(tensor[i])
                    value += (largest**power - 1) ** 2
                    derivatives[name][i] += (
                        2
                        * (largest**power - 1)
                        * power
                        * largest ** (power - 1)
                        * np.sign(tensor[i])
                    )
            assert values[run].item() == pytest.approx(arm["strength"] * value, rel=1e-10)
            for name, derivative in derivatives.items():
                np.testing.assert_allclose(
                    gradients[name][run].numpy(),
                    arm["strength"] * derivative,
                    rtol=1e-8,
                    atol=1e-11,
                    err_msg=name,
                )


@pytest.mark.parametrize(("network", "kernels"), NETWORKS)
def test_many_power_iterations_give_the_largest_singular_value(network, kernels):
    learner = learner_of(network, runs=1)
    moved(learner, 0)
    with torch.no_grad():
        for name, tensor in learner.parameters.tensors.items():
            if tensor.ndim == 2:  # a run's vector
                tensor.fill_(
                    1 if "norm" in name and "weight" in name else 0
                )  # so that it adds nothing
    intervention = build_method(
        "spectral", [{"strength": 1, "power": 1, "kernels": kernels}], learner
    )
    for _ in range(700):
        intervention.penalty(learner)
    expected = sum(
        (np.linalg.svd(W, compute_uv=False)[0] - 1) ** 2
        for *_, W in each_matrix(plain(learner, 0), kernels)
    )
    assert intervention.penalty(learner).item() == pytest.approx(expected, rel=1e-6)


def test_spectral_penalty_alone_drives_norms_to_one_and_biases_to_zero():
    learner = learner_of(MLP, runs=1)
    moved(learner, 0)
    intervention = build_method("spectral", [{"strength": 1}], learner)
    for _ in range(800):
        penalty_and_gradient(intervention, learner)
        with torch.no_grad():
            learner.parameters.flat -= (
                0.05 * learner.parameters.padded_gradient[:, : learner.parameters.flat.shape[1]]
            )
    tensors = plain(learner, 0)
    for *_, W in each_matrix(tensors, ""):
        assert np.linalg.svd(W, compute_uv=False)[0] == pytest.approx(1, abs=1e-3)
    assert all(
        np.abs(tensor).max() == pytest.approx(1, abs=1e-3)
        for name, tensor in tensors.items()
        if name.startswith("norm") and "weight" in name
    )
    assert all(
        np.abs(tensor).max() < 0.1 for name, tensor in tensors.items() if "bias" in name
    )  # slowly: the derivative is of third order


def test_spectral_with_power_below_one_has_a_finite_gradient_at_zero_biases():
    learner = learner_of(MLP, runs=1)
    _, gradients = penalty_and_gradient(
        build_method("spectral", [{"strength": 1, "power": 0.5}], learner), learner
    )
    assert all(derivative.isfinite().all() for derivative in gradients.values())
    assert not gradients["hidden_1.bias"].any()


GAIN = {"relu": math.sqrt(2), "crelu": math.sqrt(2), "tanh": 5 / 3}


@pytest.mark.parametrize("initialization", DEVIATIONS)
@pytest.mark.parametrize(("network", "kernels"), NETWORKS)
def test_parseval_equals_its_definition(network, kernels, initialization):
    network = Network(network.kind, network.activation, initialization, options=network.options)
    learner, strengths = learner_of(network), [0.5, 0, 2]
    intervention = build_method(
        "parseval", [{"strength": strength, "kernels": kernels} for strength in strengths], learner
    )
    moved(learner, 0)
    values, gradients = penalty_and_gradient(intervention, learner)
    for run, strength in enumerate(strengths):
        tensors = plain(learner, run)
        value, derivatives = 0.0, {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        for _, name, way, W in each_matrix(tensors, kernels):
            if name == "output.weight":
                continue
            scale = deviation(initialization, tensors[name].shape, GAIN[network.activation]) ** 2
            W = W if W.shape[0] <= W.shape[1] else W.T
            apart = W @ W.T - W.shape[1] * scale * np.eye(len(W))
            value += (apart**2).sum()
            derivative = 4 * apart @ W
            derivatives[name][way] += (
                derivative if len(derivative) == len(derivatives[name]) else derivative.T
            ).reshape(derivatives[name][way].shape)
        assert values[run].item() == pytest.approx(strength * value, rel=1e-10)
        for name, derivative in derivatives.items():
            np.testing.assert_allclose(
                gradients[name][run].numpy(),
                strength * derivative,
                rtol=1e-9,
                atol=1e-11,
                err_msg=name,
            )


@pytest.mark.parametrize("network", [MLP, WIDE])
def test_parseval_is_zero_for_orthogonal_weights_only(network):
    network = Network(network.kind, network.activation, "orthogonal", options=network.options)
    learner = learner_of(network)
    intervention = build_method("parseval", [{"strength": 1}] * 3, learner)
    values, gradients = penalty_and_gradient(intervention, learner)
    assert (values < 1e-25).all()
    assert all(derivative.abs().max() < 1e-12 for derivative in gradients.values())
    with torch.no_grad():
        learner.parameters.tensors["hidden_2.weight"][1] *= 1.1
        learner.parameters.tensors["output.weight"][2] *= 1.1
    values, _ = penalty_and_gradient(intervention, learner)
    assert (values > 1e-3).tolist() == [False, True, False]


@pytest.mark.parametrize("method", ["spectral", "parseval"])
def test_convolutions_without_kernels_option_are_refused(method):
    with pytest.raises(StudyError, match=r"conv_1 is a convolution, .*: add kernels: flat"):
        build_method(method, [{"strength": 1}], learner_of(CNN, runs=1))


@pytest.mark.parametrize("method", ["spectral", "parseval"])
def test_needs_lists_all_convolutional_architectures(method):
    options = {"mlp": {"width": 4, "depth": 1}}
    built = {
        kind: architecture.build(
            Network(kind, "relu", options=options.get(kind, {})), (1, 16, 16), 2
        )
        for kind in registry.names("architectures")
    }
    convolutional = [
        kind
        for kind, network in built.items()
        if any(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    ]
    assert registry.constant("methods", method, "NEEDS") == {"kernels": convolutional}


def activations_of(tensors, inputs):
    """The hidden layers of a plain mlp with tanh."""
    first = torch.tanh(inputs.flatten(1) @ tensors["hidden_1.weight"].T + tensors["hidden_1.bias"])
    return [first, torch.tanh(first @ tensors["hidden_2.weight"].T + tensors["hidden_2.bias"])]


def rank_of(features):
    """exp(−Σ p log p), by the eigenvalues of the Gram matrix."""
    gram = features @ features.T if features.shape[0] < features.shape[1] else features.T @ features
    values = torch.linalg.eigvalsh(gram).sqrt()
    shares = values / values.sum()
    return (-(shares * shares.log()).sum()).exp()


def gradient_with_penalty(intervention, learner, inputs, scale=1):
    """The gradient of scaled squares of outputs and the penalty, and the penalty itself."""
    penalties = []

    def objective():
        outputs = learner.record_activations(inputs, {})
        penalties.append(intervention.penalty(learner))
        return scale * outputs.square().sum(dim=2), penalties

    gradient = learner.parameters.gradient(objective).clone()
    return gradient, penalties[0]


def test_l2_er_equals_its_definition():
    learner = learner_of(WIDE)
    moved(learner, 0)
    arms = [{"strength": 0.5, "rank": 0.1}, {"strength": 0, "rank": 2}, {"strength": 1, "rank": 0}]
    intervention = build_method("l2_er", arms, learner)
    inputs = torch.randn(
        3, 7, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    gradient, penalty = gradient_with_penalty(intervention, learner, inputs, scale=0)
    gradients = learner.parameters.split(gradient)
    for run, arm in enumerate(arms):
        tensors = {
            name: tensor[run].detach().clone().requires_grad_()
            for name, tensor in learner.parameters.tensors.items()
        }
        hidden = activations_of(tensors, inputs[run])
        for found, expected in zip(learner.hidden.values(), hidden, strict=True):
            torch.testing.assert_close(found[run], expected, rtol=1e-12, atol=1e-12)
        value = arm["strength"] / 2 * sum((tensor**2).sum() for tensor in tensors.values())
        value = value - arm["rank"] * (rank_of(hidden[0]) + rank_of(hidden[1])) / 2
        assert penalty[run].item() == pytest.approx(value.item(), rel=1e-6)
        derivatives = torch.autograd.grad(value, list(tensors.values()), allow_unused=True)
        for name, derivative in zip(tensors, derivatives, strict=True):
            expected = torch.zeros_like(tensors[name]) if derivative is None else derivative
            torch.testing.assert_close(gradients[name][run], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5)])
def test_entropy_rank_of_features_equals_that_of_singular_values(shape):
    features = torch.randn(
        4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    features[1, :, 1] = 2 * features[1, :, 0]  # a singular value of 0
    features[2, 1:] = 0
    found = entropy_rank(features)
    torch.testing.assert_close(
        found, spectrum.entropy_rank(torch.linalg.svdvals(features)), rtol=1e-6, atol=0
    )
    assert found[2].item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entropy_rank_of_zero_or_non_finite_features_is_one_with_finite_gradient(dtype):
    features = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = entropy_rank(
        features[3:].clone().requires_grad_()
    ).detach()  # without gradients LAPACK takes another way
    features[0], features[1, 2, 2], features[2, 0, 0] = 0, torch.nan, torch.inf
    features.requires_grad_()
    ranks = entropy_rank(features)
    (derivatives,) = torch.autograd.grad(ranks.sum(), features)
    assert ranks[:3].tolist() == [1, 1, 1]
    assert torch.equal(ranks[3:], expected)
    assert derivatives.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", ["spectral", "parseval", "l2_er"])
def test_non_finite_run_does_not_change_penalties_and_gradients_of_others(method, value):
    arms, found = (
        [{"strength": 0.1, "rank": 0.1} if method == "l2_er" else {"strength": 0.1}] * 3,
        [],
    )
    inputs = torch.randn(3, 7, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    for broken in (False, True):
        learner = learner_of(WIDE, dtype=torch.float32)
        intervention = build_method(method, arms, learner)
        if broken:
            with torch.no_grad():
                learner.parameters.tensors["hidden_2.weight"][1, 2] = value
        for _ in range(2):
            gradient, penalty = gradient_with_penalty(intervention, learner, inputs)
        found.append((penalty.detach()[[0, 2]], gradient[[0, 2]]))
    assert all(map(torch.equal, *found))
