"""Optimizers against torch's, one run at a time, and independent of other runs to the bit."""

import pytest
import torch

from plasticity.config.models import Optimizer
from plasticity.training.optimizer import build

KINDS = {
    "adam": ("adam", {"lr": 0.01}, torch.optim.Adam),
    "adam with betas": ("adam", {"lr": 0.01, "betas": [0.5, 0.9]}, torch.optim.Adam),
    "adamw": ("adamw", {"lr": 0.01, "weight_decay": 0.3}, torch.optim.AdamW),
    "adamw as it is": ("adamw", {"lr": 0.01}, torch.optim.AdamW),
    "sgd": ("sgd", {"lr": 0.01}, torch.optim.SGD),
    "momentum": ("sgd", {"lr": 0.01, "momentum": 0.9}, torch.optim.SGD),
}
WHICH = pytest.mark.parametrize(("kind", "options", "theirs"), KINDS.values(), ids=KINDS)


@WHICH
@pytest.mark.parametrize("seed", range(3))
def test_each_run_equals_torch_optimizer(kind, options, theirs, seed):
    torch.manual_seed(seed)
    rows = torch.randn(3, 11).double()
    gradients = torch.randn(30, 3, 11).double() * torch.logspace(-9, 3, 11)
    ours, optimizer = rows.clone(), build(Optimizer(kind, options=options), rows)
    for gradient in gradients:
        optimizer.step(ours, gradient.clone())
    for run, row in enumerate(rows):
        parameter = torch.nn.Parameter(row.clone())
        reference = theirs([parameter], **options, fused=False, foreach=False)
        for gradient in gradients:
            parameter.grad = gradient[run].clone()
            reference.step()
        torch.testing.assert_close(ours[run], parameter.detach(), rtol=1e-11, atol=1e-13)


@WHICH
@pytest.mark.parametrize("width", [16, 48, 112])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_step_of_a_run_does_not_depend_on_other_runs(kind, options, theirs, width, dtype):
    torch.manual_seed(width)
    gradients = torch.randn(20, 5, width, dtype=dtype)
    all_rows = torch.randn(5, width, dtype=dtype)
    row = all_rows[3:4].clone()
    together, alone = (
        build(Optimizer(kind, options=options), parameters) for parameters in (all_rows, row)
    )
    for gradient in gradients:
        together.step(all_rows, gradient.clone())
        alone.step(row, gradient[3:4].contiguous())
    assert torch.equal(all_rows[3:4], row)


@WHICH
def test_reset_optimizer_equals_new_optimizer(kind, options, theirs):
    torch.manual_seed(0)
    gradients = torch.randn(4, 2, 16)
    rows = [torch.zeros(2, 16) for _ in range(2)]
    used, new = (build(Optimizer(kind, options=options), row) for row in rows)
    used.step(torch.zeros(2, 16), gradients[0].clone())
    used.reset()
    for gradient in gradients[1:]:
        used.step(rows[0], gradient.clone())
        new.step(rows[1], gradient.clone())
    assert torch.equal(*rows)


@WHICH
@pytest.mark.parametrize("of_each_run", [False, True])
def test_reset_state_clears_means_of_selected_parameters_only(kind, options, theirs, of_each_run):
    torch.manual_seed(0)
    optimizer = build(Optimizer(kind, options=options), torch.zeros(2, 16))
    optimizer.step(torch.zeros(2, 16), torch.randn(2, 16))
    before = {name: mean.clone() for name, mean in optimizer.means.items()}
    where = torch.arange(13) % 3 == 0  # rows are padded: a mask covers the parameters
    where = torch.stack([where, ~where]) if of_each_run else where
    optimizer.reset_state(where)
    for name, mean in optimizer.means.items():
        assert (mean[:, :13][where.expand(2, 13)] == 0).all()
        assert torch.equal(
            mean[:, :13][~where.expand(2, 13)], before[name][:, :13][~where.expand(2, 13)]
        )
        assert torch.equal(mean[:, 13:], before[name][:, 13:])
    assert (optimizer.steps == 1).all()


@WHICH
def test_reset_state_of_a_whole_run_equals_a_new_optimizer_for_it(kind, options, theirs):
    torch.manual_seed(0)
    gradients, rows = torch.randn(4, 3, 16), torch.zeros(3, 16)
    used, new = (
        build(Optimizer(kind, options=options), rows),
        build(Optimizer(kind, options=options), rows[:1]),
    )
    used.step(torch.zeros(3, 16), gradients[0].clone())
    used.reset_state(torch.tensor([[False], [True], [False]]).expand(3, 16))
    lone = torch.zeros(1, 16)
    for gradient in gradients[1:]:
        used.step(rows, gradient.clone())
        new.step(lone, gradient[1:2].contiguous())
    assert torch.equal(rows[1:2], lone)
    assert used.steps.tolist() == [4, 3, 4]
