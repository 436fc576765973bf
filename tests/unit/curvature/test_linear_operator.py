"""Compare operators in scipy's form with dense matrices, and check refusals."""

import numpy as np
import pytest
import torch
from dense import dense, random_network
from scipy.sparse.linalg import eigsh
from torch import nn

from plasticity.config import registry
from plasticity.curvature import Fisher
from plasticity.errors import StudyError
from plasticity.models.losses import cross_entropy


def build(name, dtype=torch.float64):
    """Return an operator and the dense matrices of a network."""
    network, x, y = random_network("mlp", "tanh", "cross_entropy", seed=1)
    expected = dense(network, x, y, "cross_entropy")
    operator = registry.load("operators", name).Operator(
        network.to(dtype), x.to(dtype), y, cross_entropy
    )
    return operator, expected


@pytest.mark.parametrize("name", registry.names("operators"))
@pytest.mark.parametrize("block", [None, "0", "last_two"])
def test_products_equal_those_of_the_dense_matrix(name, block):
    operator, expected = build(name)
    layers = None if block is None else operator.blocks()[block]
    matrix = expected.block(name, layers or operator.blocks()["all"]).numpy()
    linear = operator.as_linear_operator(layers)
    assert linear.shape == matrix.shape
    assert linear.dtype == np.float64
    columns = np.random.default_rng(0).normal(size=(len(matrix), 70))
    tolerance = 1e-12 * np.abs(matrix).sum()
    np.testing.assert_allclose(linear @ columns, matrix @ columns, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        linear @ columns[:, 0], matrix @ columns[:, 0], rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        linear.T @ columns[::-1, 0], matrix @ columns[::-1, 0], rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("name", registry.names("operators"))
def test_eigenvalues_by_scipy_equal_those_of_the_dense_matrix(name):
    operator, expected = build(name)
    values = eigsh(operator.as_linear_operator(), k=3, which="LA", return_eigenvectors=False)
    largest = torch.linalg.eigvalsh(expected.matrices[name])[-3:].numpy()
    np.testing.assert_allclose(np.sort(values), largest, rtol=1e-9)


def test_linear_operator_has_the_precision_of_the_network():
    operator, expected = build("hessian", torch.float32)
    linear = operator.as_linear_operator()
    matrix = expected.matrices["hessian"].numpy()
    product = linear @ np.ones(len(matrix))
    assert linear.dtype == product.dtype == np.float32
    np.testing.assert_allclose(
        product, matrix.sum(axis=1), rtol=0, atol=1e-5 * np.abs(matrix).max()
    )


def test_array_to_read_only_is_a_vector():
    linear = build("fisher")[0].as_linear_operator()
    vector = np.ones(linear.shape[0])
    vector.flags.writeable = False
    assert np.isfinite(linear @ vector).all()


def test_unknown_layer_is_refused():
    with pytest.raises(StudyError, match=r"has the layer 'hidden', which is none of the trainable"):
        build("fisher")[0].as_linear_operator(["hidden"])


def test_complex_vector_is_refused():
    linear = build("fisher")[0].as_linear_operator()
    with pytest.raises(StudyError, match="multiplies real vectors, and this one is complex"):
        linear @ np.full(linear.shape[0], 1j)


def test_operator_of_several_runs_is_refused():
    network = nn.Linear(2, 2)
    stacked = {
        name: parameter.detach().expand(3, *parameter.shape).clone().requires_grad_()
        for name, parameter in network.named_parameters()
    }
    x, y = torch.randn(3, 4, 2), torch.randint(2, (3, 4))
    operator = Fisher(network, x, y, cross_entropy, stacked)
    with pytest.raises(StudyError, match="this Fisher is of 3 runs: build one operator per run"):
        operator.as_linear_operator()


class Attention(nn.Module):
    """Torch's own attention; its kernel on CPUs has no second derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 6)

    def forward(self, x):
        query, key, value = self.layer(x).unflatten(-1, (3, 1, 2)).movedim(-3, 0)
        return nn.functional.scaled_dot_product_attention(query, key, value).flatten(1)


def test_missing_second_derivative_is_named():
    x, y = torch.randn(3, 2), torch.randint(2, (3,))
    linear = Fisher(Attention(), x, y, cross_entropy).as_linear_operator()
    with pytest.raises(StudyError, match="the Fisher needs second derivatives, and torch has none"):
        linear @ np.ones(linear.shape[0])
