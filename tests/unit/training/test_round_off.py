"""Stated errors of estimated eigenvalues hold despite rounding."""

import pytest
import torch
from torch import nn

from plasticity.curvature import spectrum
from plasticity.curvature.lanczos import Quadrature
from plasticity.curvature.operators import ggn, hessian
from plasticity.models.losses import cross_entropy


@pytest.mark.parametrize("kind", [hessian, ggn])
@pytest.mark.parametrize("steps", [32, 96])
def test_exact_eigenvalues_are_within_stated_errors(kind, steps):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)
    ).double()
    inputs, labels = torch.randn(64, 16, dtype=torch.float64), torch.randint(5, (64,))
    operator = kind.Operator(network, inputs, labels, cross_entropy)
    blocks = {"all": operator.blocks()["all"]}
    known = operator.spectra(blocks)["all"]
    exact = nn.functional.pad(
        known.values, (0, known.size - len(known.values))
    )  # a Gram matrix lacks the zeros
    found = operator.spectra(blocks, exact_up_to=64, estimate=Quadrature(steps))["all"]
    assert found.weights is not None
    off = (found.ends[:, None] - exact).abs().amin(dim=-1)
    assert (off <= found.residuals).all()
    numbers, errors = spectrum.summary(found)
    assert errors["top_eigenvalue"] > 0  # which would say that it is exact
    assert abs(numbers["top_eigenvalue"] - exact[0]) <= errors["top_eigenvalue"]
