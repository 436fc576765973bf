"""Losses of each sample equal PyTorch's, and so do their gradients."""

import pytest
import torch
from torch import nn

from plasticity.models.losses import cross_entropy, squared_error, zero_one_error


@pytest.mark.parametrize("leading_dims", [(), (3,), (2, 3)])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy_and_its_gradient_equal_pytorchs(leading_dims, scale):
    torch.manual_seed(0)
    outputs = (scale * torch.randn(*leading_dims, 7, 5).double()).requires_grad_()
    labels = torch.randint(5, (*leading_dims, 7))
    weights = torch.randn(*leading_dims, 7).double()
    losses = cross_entropy(outputs, labels)
    expected = nn.functional.cross_entropy(
        outputs.flatten(0, -2), labels.flatten(), reduction="none"
    ).view(*leading_dims, 7)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    [gradient] = torch.autograd.grad((weights * losses).sum(), outputs)
    [expected_gradient] = torch.autograd.grad((weights * expected).sum(), outputs)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-12)


def test_cross_entropy_of_known_outputs():
    outputs = torch.tensor([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]]).double()
    losses = cross_entropy(outputs, torch.tensor([0, 0, 0]))
    assert losses.tolist() == pytest.approx([0.6931471805599453, 0.0, 1000.0])


def test_zero_one_error_is_1_where_the_largest_output_is_not_at_the_label():
    outputs = torch.tensor([[[3.0, 1.0], [1.0, 3.0]], [[-1.0, -2.0], [0.0, 5.0]]])
    errors = zero_one_error(outputs, torch.tensor([[0, 0], [1, 1]]))
    assert errors.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_squared_error_uses_the_only_output():
    outputs = torch.tensor([[[3.0], [1.0]], [[-1.0], [0.0]]])
    errors = squared_error(outputs, torch.tensor([[1.0, 1.0], [2.0, 0.5]]))
    assert errors.tolist() == [[4.0, 0.0], [9.0, 0.25]]
