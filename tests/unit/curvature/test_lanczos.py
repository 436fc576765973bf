"""Krylov spaces against the matrices that they stand for; estimates against spectra that are known, over a hundred draws at once.

A draw is a run of a batch: the operator is diagonal, so random starts are all that differs.
"""

import pytest
import torch
from scipy.stats import t as t_distribution
from tiers import slow_except

from plasticity.curvature import lanczos, spectrum
from plasticity.curvature.lanczos import block_lanczos, stochastic_lanczos_quadrature
from plasticity.curvature.spectrum import Spectrum

DRAWS, SIZE = 100, 400


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def rotated(values, size=80):
    """A matrix with these eigenvalues, and others that are zero."""
    Q = torch.linalg.qr(torch.randn(size, size).double()).Q
    return (Q * torch.nn.functional.pad(double(values), (0, size - len(values)))) @ Q.T


MATRICES = {
    "decaying": torch.logspace(0, -14, 80),
    "indefinite": torch.linspace(-1, 1, 80),
    "of low rank": [5.0, 3.0, -2.0, 1.0],
    "zero": [0.0],
    "the identity": torch.ones(80),
    "of repeated eigenvalues": [10.0] * 5 + [1.0] * 5 + [0.1] * 20,
    "of one large eigenvalue": [1e6, *torch.linspace(0, 1, 79)],
    "of two scales": [1e3] * 10 + [*torch.linspace(1e-3, 2e-3, 70)],
    "of a tail at round-off": [5.0, 3.0, 2.0, *(1e-7 * torch.linspace(0, 1, 77))],
    "of small numbers": torch.linspace(-1e-30, 1e-30, 80),
}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("removed", [0, 5])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_basis_is_orthonormal_and_the_matrix_is_the_operator_in_it(dtype, block, removed, kind):
    torch.manual_seed(0)
    A, round_off = rotated(MATRICES[kind]), torch.finfo(dtype).eps
    known = spectrum.eigenvectors(A)[1][:, :removed].T.to(dtype)
    found = block_lanczos(
        lambda vectors: (vectors.double() @ A).to(dtype),
        torch.randn(2, block, 80).to(dtype),
        24 // block,
        known,
    )
    Q = found.basis.double()
    assert (Q @ Q.mT - torch.eye(24)).abs().max() < 30 * round_off
    assert not removed or (Q @ known.double().T).abs().max() < 30 * round_off
    # what is below 100 round-offs of the operator counts as none, for each of a block's vectors and in several rows
    assert (Q @ A @ Q.mT - found.matrix).abs().max() <= 1000 * round_off * A.abs().max()
    beyond = Q @ A - found.matrix @ Q
    beyond = beyond - beyond @ known.double().T @ known.double()
    torch.testing.assert_close(
        beyond[:, -block:].norm(dim=(-2, -1)),
        found.below.norm(dim=(-2, -1)),
        rtol=1e-3,
        atol=1000 * round_off * A.abs().max().item(),
    )


def test_an_exhausted_space_goes_on_to_the_equal_eigenvalues_that_its_start_cannot_see():
    torch.manual_seed(0)
    A = rotated([4.0, 4.0, 4.0, -1.0, -1.0], 20)
    found = block_lanczos(lambda vectors: vectors @ A, torch.randn(1, 1, 20).double(), 20)
    torch.testing.assert_close(
        spectrum.eigenvectors(found.matrix[0])[0],
        spectrum.eigenvectors(A)[0],
        rtol=1e-12,
        atol=1e-13,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_a_space_goes_on_from_is_not_what_is_removed_from_the_next(dtype):
    torch.manual_seed(0)
    first = block_lanczos(torch.zeros_like, torch.randn(1, 2, 1, 40, dtype=dtype), 8).basis[0]
    second = block_lanczos(torch.zeros_like, torch.randn(3, 2, 1, 40, dtype=dtype), 8, first).basis
    both = torch.cat([first.expand(3, -1, -1, -1), second], dim=-2)
    assert (both @ both.mT - torch.eye(16)).abs().max() < 30 * torch.finfo(dtype).eps


def marchenko_pastur(size, samples):
    X = torch.randn(size, samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.eigvalsh(X @ X.T / samples)


def wigner(size):
    X = torch.randn(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.eigvalsh((X + X.T) / (2 * size) ** 0.5)


def network_like(size):
    """Few outliers, a bulk of both signs with most of it near zero."""
    drawn = torch.randn(
        2, size - 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return torch.cat([double([50, 20, 12, 8, 5, 4, 3, 2.5, 2]), 0.02 * drawn[0] * drawn[1].abs()])


SPECTRA = {
    "a network's": network_like(SIZE),
    "Marchenko and Pastur's": marchenko_pastur(SIZE, 2 * SIZE),
    "Wigner's semicircle": wigner(SIZE),
    "a power law": torch.arange(1, SIZE + 1).double() ** -1,
    "decaying exponentially": torch.exp(-torch.arange(SIZE).double() / 10),
    "a null space and a bulk that reaches to zero": torch.cat(
        [torch.zeros(300), torch.linspace(0, 1, 100) ** 3]
    ).double(),
}


def estimated(values, steps=64, probes=4, block=1, dtype=torch.float64, draws=DRAWS):
    """The spectrum of a diagonal operator, estimated by many draws."""
    starts = torch.randn(
        1 + probes,
        draws,
        block,
        len(values),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    return stochastic_lanczos_quadrature(
        lambda vectors: vectors * values.to(dtype), starts.to(dtype), steps, 10
    )


ESTIMATES = [(64, 4, 1, torch.float64), (32, 4, 1, torch.float32), (12, 4, 3, torch.float32)]


@pytest.mark.parametrize(
    ("steps", "probes", "block", "dtype"), slow_except([ESTIMATES[2]], ESTIMATES)
)
@pytest.mark.parametrize("kind", SPECTRA)
def test_what_is_stated_of_errors_holds(kind, steps, probes, block, dtype):
    values = SPECTRA[kind]
    found = estimated(values, steps, probes, block, dtype)
    numbers, errors = spectrum.summary(found)
    # an error from few probes is itself uncertain: Student's t, whose 95 % are 3.2 errors for four probes
    within = t_distribution.ppf(0.975, probes - 1)
    for name, true in spectrum.numbers(values).items():
        round_off = 1e-5 * (true.abs() if name != "trace" else values.abs().sum()) + 1e-6 * (
            name == "negative_fraction"
        )
        held = (numbers[name] - true).abs() <= within * errors[name] + round_off
        assert held.sum() >= 90, name
    smooth, bound = spectrum.density(found)
    true = spectrum.density(Spectrum(values, len(values)))[0]
    assert ((smooth - true).abs().amax(dim=-1) <= bound).sum() >= 95


def test_what_few_steps_cannot_resolve_is_in_the_stated_error():
    """Five decades of a bulk above a null space: sixteen nodes do not know how many eigenvalues are none."""
    values = torch.cat([torch.zeros(300), torch.logspace(0, -5, 100)]).double()
    numbers, errors = spectrum.summary(estimated(values, steps=16))
    for name in ("effective_rank", "epsilon_rank", "absolute_epsilon_rank"):
        off = (numbers[name] - spectrum.numbers(values)[name]).abs()
        assert (off <= 2 * errors[name]).sum() >= 95
    assert (errors["epsilon_rank"] > 10).all()


@pytest.mark.parametrize(
    ("values", "steps", "probes", "tolerance"),
    [
        (torch.cat([1 + torch.linspace(0, 1, 12), torch.zeros(SIZE - 12)]).double(), 16, 2, 0),
        (torch.cat([1 + torch.linspace(0, 1, 40), torch.zeros(SIZE - 40)]).double(), 48, 2, 0),
        (
            torch.cat([1 + torch.linspace(0, 1, 40), 1e-6 * torch.ones(SIZE - 40)]).double(),
            64,
            2,
            0,
        ),
        (marchenko_pastur(SIZE, 2 * SIZE), 32, 4, 0.02),
        (
            marchenko_pastur(SIZE, SIZE // 2),
            64,
            100,
            0.02,
        ),  # of a space that is half null, a probe knows the share to 1 / √SIZE
    ],
)
def test_effective_ranks_are_within_two_percent(values, steps, probes, tolerance):
    rank = spectrum.summary(estimated(values, steps, probes, draws=10))[0]["effective_rank"]
    assert ((rank / spectrum.effective_rank(values) - 1).abs() <= tolerance).all()


@pytest.mark.parametrize(("steps", "block"), [(64, 1), (21, 3)])
@pytest.mark.parametrize("bulk", [0.0, 1e-3])
def test_each_of_five_equal_eigenvalues_counts(steps, block, bulk):
    levels = double([50, 30, 20, 15, 10])
    values = torch.cat(
        [levels.repeat_interleave(5), bulk * torch.linspace(0, 1, SIZE - 25).double()]
    )
    found = estimated(values, steps, 4, block, draws=20)
    for level in levels:
        near = (found.values - level).abs() < 0.01 * level
        counted, exactly = (found.weights * near).sum(dim=-1).mean(dim=0), 0.0 if bulk == 0 else 2.5
        assert (counted - 5).abs().max() <= exactly + 1e-6
    numbers, errors = spectrum.summary(found)
    for name, true in spectrum.numbers(values).items():
        within = t_distribution.ppf(0.975, 3) * errors[name] + 1e-9 * true.abs() + 1e-12
        assert ((numbers[name] - true).abs() <= within).sum() >= 18, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_of_an_operator_of_low_rank_everything_is_known(dtype):
    """Nothing is left for the probes: what they add must not be more than round-off."""
    torch.manual_seed(0)
    values = double([5, 3, 2, -1])
    A = rotated(values, 200).to(dtype)
    found = stochastic_lanczos_quadrature(
        lambda vectors: vectors @ A, torch.randn(5, 1, 200).to(dtype), 32, 4
    )
    numbers, errors = spectrum.summary(found)
    for name, true in spectrum.numbers(values).items():
        assert numbers[name].item() == pytest.approx(
            true.item(), rel=1e-12 if dtype is torch.float64 else 1e-4
        )
        if name in ("stable_rank", "entropy_rank", "trace", "negative_fraction", "top_eigenvalue"):
            assert errors[name] <= 1e-4
    smooth = spectrum.density(found)[0]
    torch.testing.assert_close(
        smooth, spectrum.density(Spectrum(values, 200))[0], rtol=1e-5, atol=1e-5
    )


def test_an_operator_of_zeros_has_counts_and_a_trace_of_zero_and_no_ratios():
    found = stochastic_lanczos_quadrature(torch.zeros_like, torch.randn(3, 1, 40), 8, 4)
    numbers, errors = spectrum.summary(found)
    for name in (
        "effective_rank",
        "epsilon_rank",
        "absolute_epsilon_rank",
        "trace",
        "top_eigenvalue",
    ):
        assert numbers[name] == 0
    assert numbers["stable_rank"].isnan()
    assert numbers["negative_fraction"].isnan()
    assert errors["trace"] == 0


def test_the_ends_are_eigenvalues_within_their_residuals_and_the_overlap_that_of_dense_eigenvectors():
    torch.manual_seed(0)
    A = rotated([40.0, 20.0, 10.0, 5.0, *torch.linspace(1, -1, 192), -3.0, -6.0], 198)
    gradient = torch.randn(198).double()
    found = stochastic_lanczos_quadrature(
        lambda vectors: vectors @ A, torch.randn(3, 1, 198).double(), 40, 4, gradient
    )
    values, vectors = spectrum.eigenvectors(A)
    assert found.ends.shape == found.residuals.shape == (8,)
    assert ((found.ends[:, None] - values).abs().amin(dim=1) <= found.residuals + 1e-12).all()
    torch.testing.assert_close(
        found.ends[[0, 1, 2, 3, 6, 7]], values[[0, 1, 2, 3, -2, -1]], rtol=1e-6, atol=0
    )
    share = (vectors[:, :4].T @ gradient).square().sum() / gradient.square().sum()
    assert found.overlap.item() == pytest.approx(share.item(), rel=1e-6)
    assert found.overlap_error < 0.01


def test_runs_and_probes_that_take_turns_have_what_each_has_alone(monkeypatch):
    torch.manual_seed(0)
    A = torch.stack(
        [
            rotated(values, 60)
            for values in ([9.0, 4.0, 1.0], torch.linspace(-1, 3, 60), torch.logspace(0, -6, 60))
        ]
    )
    starts, gradient = torch.randn(4, 3, 2, 60).double(), torch.randn(3, 60).double()
    together = stochastic_lanczos_quadrature(
        lambda vectors: (vectors[..., None, :] @ A).squeeze(-2), starts, 10, 3, gradient
    )
    with monkeypatch.context() as patch:
        patch.setattr(lanczos, "AT_ONCE", 1)
        in_turns = stochastic_lanczos_quadrature(
            lambda vectors: (vectors[..., None, :] @ A).squeeze(-2), starts, 10, 3, gradient
        )
    numbers, errors = spectrum.summary(together)
    for one, other in zip((numbers, errors), spectrum.summary(in_turns), strict=True):
        for name, number in one.items():
            torch.testing.assert_close(number, other[name], rtol=1e-9, atol=1e-9)
    for run in range(3):
        alone = stochastic_lanczos_quadrature(
            lambda vectors, A=A[run]: vectors @ A, starts[:, run], 10, 3, gradient[run]
        )
        found, of_error = spectrum.summary(alone)
        for name, number in numbers.items():
            torch.testing.assert_close(number[run], found[name], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(errors[name][run], of_error[name], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together.overlap[run], alone.overlap, rtol=1e-6, atol=1e-9)


def test_a_run_whose_products_are_nan_has_nan_and_harms_no_other():
    torch.manual_seed(0)
    values = torch.stack(
        [torch.linspace(0, 1, 50), torch.full((50,), torch.nan), torch.linspace(-1, 1, 50)]
    )
    starts, gradient = torch.randn(3, 3, 1, 50), torch.randn(3, 50)
    found = stochastic_lanczos_quadrature(lambda vectors: vectors * values, starts, 12, 4, gradient)
    healthy = stochastic_lanczos_quadrature(
        lambda vectors: vectors * values[[0, 2]], starts[:, [0, 2]], 12, 4, gradient[[0, 2]]
    )
    for part, of_healthy in zip(spectrum.summary(found), spectrum.summary(healthy), strict=True):
        for name, number in part.items():
            assert number[1].isnan(), name
            torch.testing.assert_close(number[[0, 2]], of_healthy[name], rtol=1e-4, atol=1e-5)
    smooth, bound = spectrum.density(found)
    assert smooth[1].isnan().all()
    assert bound.isnan().tolist() == [False, True, False]
    assert found.overlap.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(("probes", "steps"), [(1, 4), (2, 11)])
def test_too_few_probes_and_too_many_steps_are_refused(probes, steps):
    with pytest.raises(ValueError, match="there must be 2 probes, and twice as many dimensions"):
        stochastic_lanczos_quadrature(
            lambda vectors: vectors, torch.randn(1 + probes, 1, 20), steps, 2
        )
