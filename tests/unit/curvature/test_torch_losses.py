"""Operators of torch's losses equal dense matrices of these losses, and others are refused."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

from plasticity.curvature import NTK, Fisher, GaussNewton, Hessian
from plasticity.errors import StudyError
from plasticity.models.losses import cross_entropy

SAMPLES, OUTPUTS = 6, 3


def labels():
    return torch.randint(OUTPUTS, (SAMPLES,))


def numbers():
    return torch.randn(SAMPLES, OUTPUTS).double()


def bits():
    return torch.randint(2, (SAMPLES, OUTPUTS)).double()


def shares():
    return torch.rand(SAMPLES, OUTPUTS).double().softmax(dim=-1)


# A loss, its targets, and the layer between the network's outputs and the loss.
LOSSES = {
    "cross_entropy": (nn.CrossEntropyLoss(label_smoothing=0.1), labels, nn.Identity()),
    "cross_entropy of shares": (nn.CrossEntropyLoss(), shares, nn.Identity()),
    "sum of weighted cross_entropies": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]), reduction="sum"),
        labels,
        nn.Identity(),
    ),
    "nll": (nn.NLLLoss(), labels, nn.LogSoftmax(dim=-1)),
    "mse": (nn.MSELoss(), numbers, nn.Identity()),
    "sum of squares": (nn.MSELoss(reduction="sum"), numbers, nn.Identity()),
    "l1": (nn.L1Loss(), numbers, nn.Identity()),
    "smooth_l1": (nn.SmoothL1Loss(), numbers, nn.Identity()),
    "huber": (nn.HuberLoss(delta=0.5), numbers, nn.Identity()),
    "bce": (nn.BCELoss(), bits, nn.Sigmoid()),
    "bce with logits": (
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 3.0, 0.5])),
        bits,
        nn.Identity(),
    ),
    "kl_div": (nn.KLDivLoss(reduction="batchmean"), shares, nn.LogSoftmax(dim=-1)),
    "poisson": (nn.PoissonNLLLoss(), bits, nn.Identity()),
    "soft margin": (nn.SoftMarginLoss(), lambda: 2 * bits() - 1, nn.Identity()),
    "multi-label soft margin": (nn.MultiLabelSoftMarginLoss(), bits, nn.Identity()),
}


def network(last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, OUTPUTS), last).double()


def references(net, x, y, loss):
    """Compute the dense operators from torch's loss, of the whole batch and of each sample."""
    names = [name for name, _ in net.named_parameters()]
    shapes = [parameter.shape for parameter in net.parameters()]
    theta = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    def outputs(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        tensors = {
            name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)
        }
        return functional_call(net, tensors, (x,))

    loss = loss.double()
    of_batch = 1 / SAMPLES if loss.reduction == "sum" else 1

    def loss_of_one(outputs, targets):
        return loss(outputs[None], targets[None])

    z, J = outputs(theta), jacobian(outputs, theta)
    g, H = [], []
    for i in range(SAMPLES):
        one = partial(loss_of_one, targets=y[i])
        g.append(jacobian(one, z[i]) @ J[i])
        H.append(hessian(one, z[i]))
    g, H = torch.stack(g), torch.stack(H)
    return {
        Fisher: g.T @ g / SAMPLES,
        GaussNewton: torch.einsum("nci,nce,nej->ij", J, H, J) / SAMPLES,
        NTK: torch.einsum("nci,ncj->ij", J, J) / SAMPLES,
        Hessian: of_batch * hessian(lambda theta: loss(outputs(theta), y), theta),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_operators_of_a_torch_loss_equal_dense_matrices(name):
    loss, draw, last = LOSSES[name]
    net = network(last)
    x, y = torch.randn(SAMPLES, 2).double(), draw()
    expected = references(net, x, y, loss)
    for operator in [Fisher, GaussNewton, NTK, Hessian]:
        built = operator(net, x, y, loss)
        matrix = built.as_linear_operator() @ torch.eye(len(expected[operator])).double().numpy()
        torch.testing.assert_close(
            torch.from_numpy(matrix), expected[operator], rtol=1e-9, atol=1e-12
        )
        values = built.spectra()["all"].values
        reference = torch.linalg.eigvalsh(expected[operator]).flip(0)[: len(values)]
        torch.testing.assert_close(values, reference, rtol=1e-8, atol=1e-10)


def test_loss_of_the_user_is_not_changed():
    loss = nn.CrossEntropyLoss()
    Fisher(network(nn.Identity()), torch.randn(SAMPLES, 2).double(), labels(), loss)
    assert loss.reduction == "mean"


def test_outputs_with_more_dims_are_averaged_in_a_sample():
    """A class for each token: torch takes the classes as the second dim."""
    net = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (3, 4))).double()
    x, y = torch.randn(5, 2).double(), torch.randint(3, (5, 4))
    operator = Fisher(net, x, y, nn.CrossEntropyLoss())
    expected = torch.autograd.grad(nn.CrossEntropyLoss()(net(x), y), list(net.parameters()))
    for computed, gradient in zip(operator.gradient().values(), expected, strict=True):
        torch.testing.assert_close(computed, gradient)


def test_torch_loss_of_several_runs_equals_the_loss_per_sample():
    net = nn.Linear(2, OUTPUTS).double()
    stacked = {
        name: torch.randn(2, *parameter.shape).double().requires_grad_()
        for name, parameter in net.named_parameters()
    }
    x, y = torch.randn(2, SAMPLES, 2).double(), torch.randint(OUTPUTS, (2, SAMPLES))
    spectra = [
        GaussNewton(net, x, y, loss, stacked).spectra()["all"].values
        for loss in (nn.CrossEntropyLoss(), cross_entropy)
    ]
    assert spectra[0].shape[0] == 2
    torch.testing.assert_close(*spectra)


def test_estimate_of_a_torch_loss_with_weights_is_in_float32():
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]).double(), reduction="sum")
    net = network(nn.Identity())
    x, y = torch.randn(SAMPLES, 2).double(), labels()
    operator = GaussNewton(net, x, y, loss)._to_float32()
    vector = torch.ones(1, 27)
    product = operator.product(["0", "2"])(vector)
    assert product.dtype == torch.float32
    expected = GaussNewton(net, x, y, loss).product(["0", "2"])(vector.double())
    torch.testing.assert_close(product.double(), expected, rtol=1e-4, atol=1e-5)


REFUSED = {
    "class weights": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0])),
        torch.tensor([0, 1, 2, 0, 0, 1]),
        r"nn\.CrossEntropyLoss on this batch is .*, but the mean of its samples' losses is",
    ),
    "ignored targets": (
        nn.CrossEntropyLoss(ignore_index=1),
        torch.tensor([0, 1, 2, 0, 0, 1]),
        r"as with class weights or ignored targets: use reduction='sum', or a function that",
    ),
    "more arguments": (
        nn.GaussianNLLLoss(),
        torch.zeros(SAMPLES, OUTPUTS),
        r"nn\.GaussianNLLLoss cannot be called with outputs and targets alone \(.*'var'\): give a",
    ),
    "a row per output": (
        nn.MSELoss(reduction="none"),
        torch.zeros(SAMPLES, OUTPUTS),
        r"needs one loss per sample, shape \(6,\), but the loss has shape \(6, 3\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_loss_without_a_per_sample_form_is_refused(case):
    loss, targets, message = REFUSED[case]
    with pytest.raises(StudyError, match=message):
        Fisher(network(nn.Identity()), torch.randn(SAMPLES, 2).double(), targets, loss)


def test_unknown_reduction_is_refused():
    loss = nn.MSELoss(reduction="median")
    message = "nn.MSELoss has the unknown reduction 'median': use none, mean or batchmean or sum"
    with pytest.raises(StudyError, match=message):
        Fisher(network(nn.Identity()), torch.randn(SAMPLES, 2), torch.zeros(SAMPLES, 3), loss)


class MeanOfBatch(nn.Module):
    """A loss whose reduction has no effect."""

    reduction = "mean"

    def forward(self, outputs, targets):
        return (outputs - targets).square().mean()


def test_loss_that_always_reduces_is_refused():
    with pytest.raises(StudyError, match=r"needs one loss per sample, shape \(6,\)"):
        Fisher(
            network(nn.Identity()),
            torch.randn(SAMPLES, 2).double(),
            numbers(),
            MeanOfBatch(),
        )
