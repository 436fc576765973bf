"""Optimizers against torch's, one member at a time, in float64; and bit for bit whatever the neighbours."""

import pytest
import torch

from plasticity import optimizers
from plasticity.settings import Optimizer


@pytest.mark.parametrize("seed", range(5))
def test_adam_is_torchs_on_each_member(seed):
    torch.manual_seed(seed)
    rows = torch.randn(3, 11).double()
    gradients = torch.randn(30, 3, 11).double() * torch.logspace(-9, 3, 11)
    ours, optimizer = rows.clone(), optimizers.build(Optimizer("adam", lr=0.01), rows)
    for gradient in gradients:
        ours += optimizer.update(gradient)
    for member, row in enumerate(rows):
        parameter = torch.nn.Parameter(row.clone())
        theirs = torch.optim.Adam([parameter], lr=0.01, fused=False, foreach=False)
        for gradient in gradients:
            parameter.grad = gradient[member].clone()
            theirs.step()
        torch.testing.assert_close(ours[member], parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 64, 65])
def test_a_members_update_is_the_same_bits_whatever_its_neighbours(width):
    torch.manual_seed(width)
    gradients = torch.randn(20, 5, width)
    together, alone = optimizers.Adam(torch.zeros(5, width), lr=0.1), optimizers.Adam(torch.zeros(1, width), lr=0.1)
    for gradient in gradients:
        assert torch.equal(together.update(gradient)[3:4], alone.update(gradient[3:4]))


def test_an_optimizer_that_forgot_is_as_new():
    torch.manual_seed(0)
    gradients = torch.randn(4, 2, 5)
    used, new = optimizers.Adam(torch.zeros(2, 5), lr=0.1), optimizers.Adam(torch.zeros(2, 5), lr=0.1)
    used.update(gradients[0])
    used.forget()
    for gradient in gradients[1:]:
        assert torch.equal(used.update(gradient), new.update(gradient))
