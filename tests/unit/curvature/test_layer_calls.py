"""Compare products with directions of rank one with products of explicit gradients, in float64."""

import pytest
import torch
from torch.nn.functional import pad

from plasticity.curvature.layer_calls import LinearCall


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("run_shape", [(), (3,)])
@pytest.mark.parametrize(("n", "columns", "tokens"), [(4, 1, 1), (5, 3, 2), (2, 2, 2)])
def test_random_products_are_those_of_explicit_gradients(n, columns, tokens, run_shape, has_bias):
    torch.manual_seed(0)
    inputs = torch.randn(*run_shape, n, tokens, 3).double()
    deltas = torch.randn(*run_shape, n, columns, tokens, 2).double()
    call = LinearCall(inputs, deltas, has_bias)
    vectors, products = call.random_products(torch.Generator().manual_seed(1))
    assert len(vectors) == 1 + has_bias
    direction = vectors[0].unflatten(-1, (2, 3))
    if has_bias:
        inputs = pad(inputs, (0, 1), value=1.0)
        direction = torch.cat([direction, vectors[1][..., None]], dim=-1)
    gradients = torch.einsum("...ikto,...itw->...ikow", deltas, inputs)
    expected = torch.einsum("...ikow,...ow->...ik", gradients, direction)
    torch.testing.assert_close(products, expected, rtol=1e-12, atol=1e-13)
