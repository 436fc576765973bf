"""Losses of each sample against PyTorch's own, with their gradients."""

import pytest
import torch
from torch import nn

from plasticity.models.losses import cross_entropy, mistakes, squared_error


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy_and_its_gradient_are_pytorchs(lead, scale):
    torch.manual_seed(0)
    outputs = (scale * torch.randn(*lead, 7, 5).double()).requires_grad_()
    labels = torch.randint(5, (*lead, 7))
    weights = torch.randn(*lead, 7).double()
    losses = cross_entropy(outputs, labels)
    expected = nn.functional.cross_entropy(
        outputs.flatten(0, -2), labels.flatten(), reduction="none"
    ).view(*lead, 7)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad((weights * loss).sum(), outputs)[0] for loss in (losses, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


def test_cross_entropy_of_known_outputs():
    outputs = torch.tensor([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]]).double()
    assert cross_entropy(outputs, torch.tensor([0, 0, 0])).tolist() == pytest.approx(
        [0.6931471805599453, 0.0, 1000.0]
    )


def test_mistakes_are_where_the_largest_output_is_not_the_labels():
    outputs = torch.tensor([[[3.0, 1.0], [1.0, 3.0]], [[-1.0, -2.0], [0.0, 5.0]]])
    assert mistakes(outputs, torch.tensor([[0, 0], [1, 1]])).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_squared_errors_are_of_the_one_output():
    outputs = torch.tensor([[[3.0], [1.0]], [[-1.0], [0.0]]])
    assert squared_error(outputs, torch.tensor([[1.0, 1.0], [2.0, 0.5]])).tolist() == [
        [4.0, 0.0],
        [9.0, 0.25],
    ]
