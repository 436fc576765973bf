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
    ours, optimizer = rows.clone(), optimizers.build(Optimizer("adam", options={"lr": 0.01}), rows)
    for gradient in gradients:
        optimizer.step(ours, gradient)
    for member, row in enumerate(rows):
        parameter = torch.nn.Parameter(row.clone())
        theirs = torch.optim.Adam([parameter], lr=0.01, fused=False, foreach=False)
        for gradient in gradients:
            parameter.grad = gradient[member].clone()
            theirs.step()
        torch.testing.assert_close(ours[member], parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("width", [16, 32, 48, 112])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_members_step_is_the_same_bits_whatever_its_neighbours_in_rows_of_whole_vectors(width, dtype):
    torch.manual_seed(width)
    gradients = torch.randn(20, 5, width, dtype=dtype)
    all_rows = torch.randn(5, width, dtype=dtype)
    row = all_rows[3:4].clone()
    together, alone = optimizers.Adam(all_rows, lr=0.1), optimizers.Adam(row, lr=0.1)
    for gradient in gradients:
        together.step(all_rows, gradient)
        alone.step(row, gradient[3:4].contiguous())
    assert torch.equal(all_rows[3:4], row)


def test_an_optimizer_that_forgot_is_as_new():
    torch.manual_seed(0)
    gradients = torch.randn(4, 2, 16)
    rows = [torch.zeros(2, 16) for _ in range(2)]
    used, new = (optimizers.Adam(row, lr=0.1) for row in rows)
    used.step(torch.zeros(2, 16), gradients[0])
    used.forget()
    for gradient in gradients[1:]:
        used.step(rows[0], gradient)
        new.step(rows[1], gradient)
    assert torch.equal(*rows)
