"""Compare the displacement of eigenspaces with angles between dense eigenvectors, in float64."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import nn

from plasticity.config.models import Curvature, Network
from plasticity.curvature import displacement
from plasticity.curvature.batch_loss import BatchLoss
from plasticity.curvature.displacement import TopEigenvectors
from plasticity.curvature.gram import GramMatrices, loss_gradients
from plasticity.curvature.spectrum import eigenvectors
from plasticity.models import architecture
from plasticity.models.losses import cross_entropy


def top_eigenvectors(gradients, top):
    """Compute the top eigenvectors of the Gram matrix of some gradients, shape ``(n, d)``."""
    values, vectors = eigenvectors(gradients @ gradients.T / len(gradients))
    return TopEigenvectors(values.clamp(min=0), vectors[:, :top])


def displacement_of(previous, following, top):
    """Compute the displacement of two sets of gradients."""
    products = previous @ following.T / len(previous)
    return displacement.eigenspace_displacement(
        products, top_eigenvectors(previous, top), top_eigenvectors(following, top), top
    )


def displacement_by_angles(previous, following, top):
    """Compute the displacement from eigenvectors of dense matrices, and scipy's angles."""
    spans = []
    for gradients in (previous.numpy(), following.numpy()):
        matrix = gradients.T @ gradients / len(gradients)
        spans.append(np.linalg.eigh(matrix)[1][:, -top:])
    return 1 - np.mean(np.cos(subspace_angles(*spans)) ** 2)


@pytest.mark.parametrize(
    ("n", "d", "top"), [(6, 9, 1), (6, 9, 3), (7, 7, 4), (12, 5, 2), (5, 20, 5)]
)
@pytest.mark.parametrize("seed", range(3))
def test_displacement_equals_that_of_principal_angles_between_dense_eigenvectors(n, d, top, seed):
    torch.manual_seed(seed)
    previous, following = torch.randn(2, n, d).double()
    found = displacement_of(previous, following, top).item()
    assert found == pytest.approx(displacement_by_angles(previous, following, top), abs=1e-10)


def test_displacement_is_zero_for_equal_and_one_for_orthogonal_spans():
    torch.manual_seed(0)
    gradients = torch.randn(4, 3).double()
    zeros = torch.zeros(4, 3).double()
    one, other = torch.cat([gradients, zeros], dim=1), torch.cat([zeros, gradients], dim=1)
    assert displacement_of(one, one, 2) == pytest.approx(0, abs=1e-12)
    assert displacement_of(one, other, 2) == 1
    # Other samples with the same span.
    assert displacement_of(one, 2 * one.flip(0), 2) == pytest.approx(0, abs=1e-12)


def test_displacement_is_missing_where_a_span_is_not_known():
    torch.manual_seed(0)
    full, other = torch.randn(2, 5, 8).double()
    low_rank = torch.randn(5, 2).double() @ torch.randn(2, 8).double()
    tied = torch.eye(8).double()[:5]
    assert displacement_of(full, other, 3).isfinite()
    assert displacement_of(low_rank, full, 2).isfinite()
    assert displacement_of(low_rank, full, 3).isnan(), "only two eigenvalues are not zero"
    assert displacement_of(full, low_rank, 3).isnan()
    assert displacement_of(full, tied, 3).isnan(), "all eigenvalues are equal"
    assert displacement_of(full, tied, 5).isfinite()
    assert displacement_of(full, other, 6).isnan(), "there are five samples"


# Options, the shape of an image, and the number of samples.
CASES = {
    "mlp": ({"width": 5, "depth": 2}, (1, 2, 3), 7),
    "mlp, equal": ({"width": 6, "depth": 2}, (1, 2, 3), 6),
    "cnn": ({"width": 4}, (2, 17, 16), 5),
    "cnn, norms": ({"width": 4, "norm": "layer"}, (1, 16, 16), 6),
    "vit": ({"width": 4, "depth": 1, "heads": 2, "patch": 4}, (2, 8, 12), 5),
}


@pytest.mark.parametrize("case", CASES)
def test_products_of_two_batches_and_diagonals_equal_those_of_per_sample_gradients(case):
    options, shape, samples = CASES[case]
    config = Network(case.partition(",")[0], "tanh", options=options)
    network = architecture.build(config, shape, 3).double().eval()
    torch.manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.3, parameter[0].numel() ** -0.5))
    grams, gradients = [], []
    for _ in range(2):
        inputs, labels = torch.randn(samples, *shape).double(), torch.randint(3, (samples,))
        batch = BatchLoss(network, inputs, labels, cross_entropy)
        grams.append(GramMatrices(loss_gradients, batch))
        gradients.append(rows_by_layer(network, inputs, labels))
    for layer in grams[0]:
        expected = gradients[0][layer] @ gradients[1][layer].T / samples
        found = grams[0].products_with(grams[1], [layer])
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        squares = gradients[0][layer].square().sum(dim=1) / samples
        torch.testing.assert_close(grams[0].diagonal([layer]), squares, rtol=1e-9, atol=1e-12)


def rows_by_layer(network, inputs, labels):
    """Compute per-sample gradients by layer, shape ``(n, parameter)``."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    rows = {}
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        gradients = torch.autograd.grad(loss, parameters)
        of_sample = {}
        for name, gradient in zip(names, gradients, strict=True):
            of_sample.setdefault(name.rpartition(".")[0], []).append(gradient.flatten())
        for layer, parts in of_sample.items():
            rows.setdefault(layer, []).append(torch.cat(parts))
    return {layer: torch.stack(of_layer) for layer, of_layer in rows.items()}


@pytest.mark.parametrize(
    ("operators", "points", "is_measured"),
    [
        (["fisher"], ["previous", "next"], True),
        (["fisher"], ["next", "fresh"], False),
        (["ggn"], ["previous", "next"], False),
        ({"fisher": {"evaluation_points": ["next"]}}, ["previous", "next"], False),
    ],
)
def test_displacement_is_measured_only_with_the_fisher_on_the_data_of_both_tasks(
    operators, points, is_measured
):
    keys = {"operators": operators, "samples": 9, "evaluation_points": points, "every": 1}
    assert bool(displacement.table(Curvature.of(keys))) == is_measured
