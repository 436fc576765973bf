"""Compare the measures of gradients with loops over samples and units, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from plasticity.config.models import Network
from plasticity.curvature import gradient_measures
from plasticity.curvature.batch_loss import BatchLoss
from plasticity.curvature.blocks import blocks_of
from plasticity.models import architecture
from plasticity.models.losses import cross_entropy

# Options, the shape of an image, and the number of samples.
CASES = {
    "mlp": ("mlp", {"width": 5, "depth": 2}, (1, 2, 3), 7),
    "mlp of equal sizes": ("mlp", {"width": 6, "depth": 2}, (1, 2, 3), 6),
    "mlp with norms": ("mlp", {"width": 5, "depth": 2, "norm": "layer"}, (1, 2, 3), 7),
    "cnn": ("cnn", {"width": 4}, (2, 17, 16), 5),
    "cnn with norms": ("cnn", {"width": 4, "norm": "layer"}, (1, 16, 16), 4),
    "vit": ("vit", {"width": 4, "depth": 1, "heads": 2, "patch": 4}, (2, 8, 12), 5),
}
RUNS = 3


def random_batch(case, activation, seed):
    """Draw a network, inputs and labels."""
    kind, options, shape, samples = CASES[case]
    network = architecture.build(Network(kind, activation, options=options), shape, 3).double()
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.3, parameter[0].numel() ** -0.5))
    return network.eval(), torch.randn(samples, *shape).double(), torch.randint(3, (samples,))


def gradients_of_samples(network, inputs, labels):
    """Compute the gradient of each sample's loss, by parameter, one sample after another."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    rows = {name: [] for name in names}
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
            rows[name].append(gradient.flatten().numpy())
    return {name: np.stack(of_name) for name, of_name in rows.items()}


def expected_measures(network, inputs, labels, layers):
    """Compute strength, reliability and readiness of a block from all gradients."""
    by_name = gradients_of_samples(network, inputs, labels)
    in_block = [rows for name, rows in by_name.items() if name.rpartition(".")[0] in layers]
    gradients = np.concatenate(in_block, axis=1)
    strength = np.linalg.norm(gradients.mean(axis=0)) ** 2
    mean_square = np.mean([np.linalg.norm(row) ** 2 for row in gradients])
    return strength, strength / mean_square, strength**2 / mean_square


NAMES = ("gradient_strength", "gradient_reliability", "optimization_readiness")


@pytest.mark.parametrize("activation", ["relu", "tanh", "crelu"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_measures_of_every_block_equal_those_of_all_samples_gradients(case, activation):
    network, inputs, labels = random_batch(case, activation, seed=1)
    blocks = blocks_of(network)
    found = gradient_measures.gradient_measures(
        BatchLoss(network, inputs, labels, cross_entropy), blocks
    )
    for index, layers in enumerate(blocks.values()):
        expected = expected_measures(network, inputs, labels, layers)
        values = [found[name][index].item() for name in NAMES]
        assert values == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", ["mlp", "mlp of equal sizes", "mlp with norms"])
def test_gradient_measures_of_stacked_runs_equal_those_of_single_runs(case):
    runs = [random_batch(case, "tanh", seed) for seed in range(RUNS)]
    networks, inputs, labels = zip(*runs, strict=True)
    tensors = {
        name: torch.stack([dict(network.named_parameters())[name].detach() for network in networks])
        for name, _ in networks[0].named_parameters()
    }
    for tensor in tensors.values():
        tensor.requires_grad_()
    blocks = blocks_of(networks[0])
    together = gradient_measures.gradient_measures(
        BatchLoss(networks[0], torch.stack(inputs), torch.stack(labels), cross_entropy, tensors),
        blocks,
    )
    for run, single in enumerate(runs):
        expected = gradient_measures.gradient_measures(BatchLoss(*single, cross_entropy), blocks)
        for name, values in expected.items():
            torch.testing.assert_close(together[name][run], values, equal_nan=True)


class Scaled(nn.Linear):
    """A layer that no identity covers."""

    def forward(self, x):
        return 3 * super().forward(x)


def test_layer_without_an_identity_has_the_same_gradient_measures():
    torch.manual_seed(0)
    network = nn.Sequential(Scaled(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(6, 4).double(), torch.randint(3, (6,))
    blocks = blocks_of(network)
    found = gradient_measures.gradient_measures(
        BatchLoss(network, inputs, labels, cross_entropy), blocks
    )
    for index, layers in enumerate(blocks.values()):
        expected = expected_measures(network, inputs, labels, layers)
        assert [found[name][index].item() for name in NAMES] == pytest.approx(expected, rel=1e-9)


def test_reliability_is_one_for_equal_gradients_and_one_over_n_for_orthogonal_ones():
    network = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Identity()).double()

    def output_itself(outputs, targets):
        return outputs.squeeze(-1)

    for inputs, expected in [(torch.ones(4, 4), 1.0), (torch.eye(4), 0.25)]:
        batch = BatchLoss(network, inputs.double(), torch.zeros(4), output_itself)
        found = gradient_measures.gradient_measures(batch, {"all": ["0"]})
        strength = found["gradient_strength"].item()
        assert found["gradient_reliability"].item() == pytest.approx(expected)
        assert found["optimization_readiness"].item() == pytest.approx(strength * expected)


def test_reliability_is_missing_and_readiness_zero_where_all_gradients_are_zero():
    zero, one = torch.zeros(1), torch.ones(1)
    assert gradient_measures.gradient_reliability(zero, zero).isnan()
    assert gradient_measures.optimization_readiness(zero, zero) == 0
    assert gradient_measures.optimization_readiness(zero, one) == 0
    assert gradient_measures.optimization_readiness(one * torch.nan, one).isnan()


def frozen_by_loops(network, activation_name, inputs, labels):
    """Compute the share of frozen units before an activation, one sample after another.

    The derivative by a unit's input is that by a number, here zero, that is added to it.
    """
    module = network.get_submodule(activation_name)
    magnitudes = []
    for x, y in zip(inputs, labels, strict=True):
        recorded = []

        def add_zero(_, args, recorded=recorded):
            offset = torch.zeros_like(args[0], requires_grad=True)
            recorded.append(offset)
            return (args[0] + offset,)

        hook = module.register_forward_pre_hook(add_zero)
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        hook.remove()
        derivative = torch.autograd.grad(loss, recorded[0])[0][0].abs().numpy()
        # of a convolution: channels first, then rows and columns
        magnitudes.extend(derivative.reshape(len(derivative), -1).T)
    magnitudes = np.array(magnitudes)
    mean = magnitudes.sum() / magnitudes.size
    frozen = [
        sum(magnitude <= 1e-4 * mean for magnitude in unit) / len(unit) >= 0.99
        for unit in magnitudes.T
    ]
    return sum(frozen) / len(frozen)


@pytest.mark.parametrize(
    ("case", "activations"),
    [
        ("mlp", {"hidden_1": "activation_1", "hidden_2": "activation_2"}),
        ("mlp with norms", {"hidden_1": "activation_1", "hidden_2": "activation_2"}),
        ("cnn", {"conv_1": "activation_1", "hidden_1": "activation_3"}),
        ("cnn with norms", {"conv_2": "activation_2", "hidden_2": "activation_4"}),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_frozen_fraction_equals_that_of_derivatives_by_the_units_inputs(
    case, activations, activation
):
    network, inputs, labels = random_batch(case, activation, seed=2)
    with torch.no_grad():  # freeze the first units of each layer by their bias
        for name, parameter in network.named_parameters():
            if name.endswith("bias") and "output" not in name:
                parameter[:2] = -60
    blocks = blocks_of(network)
    found = gradient_measures.gradient_measures(
        BatchLoss(network, inputs, labels, cross_entropy), blocks
    )["frozen_fraction"]
    by_block = dict(zip(blocks, found.tolist(), strict=True))
    for layer, module in activations.items():
        expected = frozen_by_loops(network, module, inputs, labels)
        assert expected > 0
        assert by_block[layer] == pytest.approx(expected), layer
    assert np.isnan(by_block["output"])


@pytest.mark.parametrize(("rows", "is_frozen"), [(98, False), (99, True), (100, True)])
@pytest.mark.parametrize("scale", [1e-9, 1.0])
def test_frozen_unit_has_almost_no_gradient_on_at_least_99_percent_of_the_data(
    rows, is_frozen, scale
):
    gradients = torch.ones(2, 100, 2).double()
    gradients[0, :rows, 0] = -0.4e-4  # of a mean of about a half
    gradients[1, :rows, 0] = 0.7e-4
    found = gradient_measures.frozen(scale * gradients)
    assert found.tolist() == [[is_frozen, False], [False, False]]


def test_all_units_are_frozen_where_no_gradient_arrives():
    assert gradient_measures.frozen(torch.zeros(1, 4, 3)).all()
