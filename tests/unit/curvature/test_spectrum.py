"""Compare the numbers of spectra with their definitions in plain loops and with known answers."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plasticity.curvature import spectrum

SIGNED = st.lists(st.integers(-5000, 5000), min_size=1, max_size=12)
POSITIVE = st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any)
RANKS = [
    spectrum.effective_rank,
    spectrum.stable_rank,
    spectrum.entropy_rank,
    spectrum.epsilon_rank,
]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("values", "effective", "stable", "entropy", "epsilon"),
    [
        ([1.0, 0.0, 0.0], 1, 1, 1, 1),
        ([1.0, 1.0, 1.0, 1.0], 4, 4, 4, 4),
        (
            [98.0, 1.0, 1.0],
            2,
            100 / 98,
            math.exp(-0.98 * math.log(0.98) - 0.02 * math.log(0.01)),
            3,
        ),
        ([4.0, 2.0, 2.0], 3, 2, 2 ** (3 / 2), 3),
        ([1.0, 0.002, 0.0005], 1, 1.0025, None, 2),
        ([5.0], 1, 1, 1, 1),
    ],
)
def test_spectra_with_known_answers(values, effective, stable, entropy, epsilon):
    for rank, answer in zip(RANKS, (effective, stable, entropy, epsilon), strict=True):
        if answer is not None:
            assert rank(tensor(values)).item() == pytest.approx(answer, rel=1e-14)


def test_ranks_use_magnitudes():
    assert spectrum.effective_rank(tensor([-1.0, 1.0])) == 2
    assert spectrum.epsilon_rank(tensor([-1.0, 1e-9])) == 1
    assert spectrum.entropy_rank(tensor([-1.0, 1.0])).item() == pytest.approx(2)


@given(SIGNED, st.integers(1, 100))
def test_effective_rank_is_the_smallest_count_that_reaches_the_level(values, percent):
    magnitudes = sorted(map(abs, values), reverse=True)
    rank = 0
    while sum(magnitudes[:rank]) < Fraction(percent, 100) * sum(magnitudes):
        rank += 1
    assert spectrum.effective_rank(tensor(values), percent / 100) == rank


@given(POSITIVE)
def test_stable_rank_is_trace_over_largest(values):
    assert spectrum.stable_rank(tensor(values)).item() == pytest.approx(
        sum(values) / max(values), rel=1e-14
    )


@given(SIGNED.filter(any))
def test_entropy_rank_is_the_exponential_of_the_entropy_of_shares(values):
    entropy = 0.0
    for value in values:
        if value:
            share = abs(value) / sum(map(abs, values))
            entropy -= share * math.log(share)
    assert spectrum.entropy_rank(tensor(values)).item() == pytest.approx(
        math.exp(entropy), rel=1e-12
    )


@given(SIGNED)
def test_epsilon_rank_counts_magnitudes_above_a_thousandth_of_the_largest(values):
    assert spectrum.epsilon_rank(tensor(values)) == sum(
        1000 * abs(value) > max(map(abs, values)) for value in values
    )


@pytest.mark.parametrize("rank", RANKS)
@given(values=POSITIVE, data=st.data())
def test_order_and_scale_change_no_rank(rank, values, data):
    expected = pytest.approx(rank(tensor(values)).item(), rel=1e-12)
    permuted = data.draw(st.permutations(values))
    assert rank(tensor(permuted)).item() == expected
    for scale in (2.0**-40, 2.0**40):
        assert rank(scale * tensor(values)).item() == expected


@pytest.mark.parametrize("rank", RANKS)
@given(values=POSITIVE)
def test_every_rank_lies_between_one_and_the_number_of_nonzero_values(rank, values):
    assert 1 - 1e-12 <= rank(tensor(values)).item() <= sum(map(bool, values)) * (1 + 1e-12)


@pytest.mark.parametrize("planted", [1, 3, 6])
def test_ranks_of_a_projection_equal_its_dimension(planted):
    torch.manual_seed(planted)
    basis = torch.linalg.qr(torch.randn(12, planted).double()).Q
    values = spectrum.eigenvalues(basis @ basis.T * 5)
    torch.testing.assert_close(
        values, tensor([5.0] * planted + [0.0] * (12 - planted)), rtol=1e-12, atol=1e-12
    )
    for rank in RANKS:
        assert rank(values).item() == pytest.approx(planted, rel=1e-6)


def test_eigenvalues_descend_and_are_never_negative():
    torch.manual_seed(0)
    factor = torch.randn(4, 9, 3).double()
    values = spectrum.eigenvalues(factor @ factor.mT)
    assert (values.diff(dim=-1) <= 0).all()
    assert (values >= 0).all()
    torch.testing.assert_close(
        values[:, :3], torch.linalg.svdvals(factor).square(), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_matrix_that_is_not_finite_gives_nan_and_leaves_others_unchanged(poison):
    torch.manual_seed(0)
    factor = torch.randn(3, 4, 4).double()
    matrices = factor @ factor.mT
    healthy = spectrum.eigenvalues(matrices)
    matrices[1, 2, 3] = poison
    values = spectrum.eigenvalues(matrices)
    assert values[1].isnan().all()
    assert torch.equal(values[[0, 2]], healthy[[0, 2]])


@pytest.mark.parametrize("rank", RANKS)
def test_nan_affects_only_its_row(rank):
    ranks = rank(tensor([[2.0, 1.0], [torch.nan, 1.0], [torch.nan, torch.nan], [1.0, 1.0]]))
    assert ranks.isnan().tolist() == [False, True, True, False]
    assert torch.equal(ranks[[0, 3]], rank(tensor([[2.0, 1.0], [1.0, 1.0]])))


def test_zero_spectrum_has_zero_counts_and_nan_ratios():
    zeros = tensor([0.0, 0.0, 0.0])
    assert spectrum.effective_rank(zeros) == spectrum.epsilon_rank(zeros) == 0
    assert spectrum.stable_rank(zeros).isnan()
    assert spectrum.entropy_rank(zeros).isnan()


def test_exact_spectrum_has_the_numbers_of_its_values_and_zero_errors():
    values = tensor([[4.0, 2.0, -2.0], [1.0, 0.0, 0.0]])
    numbers, errors = spectrum.summary(spectrum.Spectrum(values, 5), levels=[0.9, 0.99, 0.5])
    assert numbers.keys() == errors.keys() == spectrum.meanings([0.9, 0.99, 0.5]).keys()
    assert numbers["trace"].tolist() == [4.0, 1.0]
    assert numbers["top_eigenvalue"].tolist() == [4.0, 1.0]
    assert numbers["negative_fraction"].tolist() == [0.25, 0.0]
    assert numbers["absolute_epsilon_rank"].tolist() == [3.0, 1.0]
    assert torch.equal(numbers["effective_rank"], spectrum.effective_rank(values, 0.9))
    assert torch.equal(numbers["effective_rank_at_0_99"], spectrum.effective_rank(values, 0.99))
    assert numbers["effective_rank_at_0_5"].tolist() == [1.0, 1.0]
    for rank in RANKS[1:]:
        assert torch.equal(numbers[rank.__name__], rank(values))
    assert not any(error.any() for error in errors.values())


def is_close(number, expected):
    """Compare two numbers; NaN equals NaN."""
    return number.item() == pytest.approx(expected.item(), rel=1e-12, nan_ok=True)


@given(SIGNED, st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_unit_weights_give_the_unweighted_numbers(values, level):
    expected = spectrum.numbers(tensor(values), levels=[level])
    ones = torch.ones(len(values)).double()
    for name, number in spectrum.numbers(tensor(values), ones, [level]).items():
        assert is_close(number, expected[name]), name


@given(SIGNED, st.data())
def test_whole_weights_give_the_numbers_of_repeated_values(values, data):
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(values), max_size=len(values)))
    expected = spectrum.numbers(tensor(values).repeat_interleave(torch.tensor(counts)))
    weights = tensor([float(count) for count in counts])
    for name, number in spectrum.numbers(tensor(values), weights).items():
        assert is_close(number, expected[name]), name


@given(SIGNED, st.data())
def test_splitting_a_value_into_two_half_weights_changes_no_number(values, data):
    count = len(values)
    weights = tensor(data.draw(st.lists(st.floats(0.01, 100), min_size=count, max_size=count)))
    index = data.draw(st.integers(0, count - 1))
    halves = weights.clone()
    halves[index] /= 2
    expected = spectrum.numbers(tensor(values), weights)
    values_with_copy = torch.cat([tensor(values), tensor(values)[[index]]])
    split = spectrum.numbers(values_with_copy, torch.cat([halves, halves[[index]]]))
    for name, number in split.items():
        assert is_close(number, expected[name]), name


def test_values_of_weight_zero_change_no_number():
    values, weights = tensor([4.0, -2.0, 1.0]), tensor([1.5, 2.0, 30.0])
    with_zeros = spectrum.numbers(
        tensor([4.0, 3.0, -2.0, 1.0, 0.5]), tensor([1.5, 0.0, 2.0, 30.0, 0.0])
    )
    for name, number in spectrum.numbers(values, weights).items():
        assert is_close(with_zeros[name], number), name


def estimate(values, weights, coarse=None):
    """Build an estimate of 100 eigenvalues; one row of nodes and weights per probe."""
    values, weights = tensor(values), tensor(weights)
    return spectrum.Spectrum(values, 100, weights, coarse or (values, weights))


def test_margin_of_the_trace_is_that_of_a_mean_over_probes():
    """The trace is linear in the weights, so the jackknife gives the deviation over √3."""
    weights = [[1.0, 20.0], [1.0, 26.0], [1.0, 23.0]]
    of_probes = estimate([[5.0, 1.0], [5.0, 1.0], [5.0, 1.0]], weights)
    numbers, margins = spectrum.summary(of_probes)
    of_spread = 4.30265 * 3 / math.sqrt(3)  # Student's 97.5 % quantile with two degrees of freedom
    assert numbers["trace"].item() == pytest.approx(28)
    assert margins["trace"].item() == pytest.approx(of_spread, rel=1e-5)
    assert numbers["epsilon_rank"].item() == pytest.approx(24)
    assert margins["epsilon_rank"].item() == pytest.approx(of_spread + 23, rel=1e-5)
    assert margins["top_eigenvalue"] == 0


def test_margin_of_a_rank_adds_up_the_nodes_of_a_block():
    """With two vectors per start, eigenvalues near the cut may have their weight on two nodes."""
    nodes, weights = [[5.0, 4.0, 1e-4, 1e-5]] * 2, [[1.0, 2.0, 10.0, 20.0]] * 2
    of_probes = estimate(nodes, weights)
    assert spectrum.summary(of_probes)[1]["epsilon_rank"].item() == pytest.approx(10)
    of_blocks = of_probes._replace(block=2)
    assert spectrum.summary(of_blocks)[1]["epsilon_rank"].item() == pytest.approx(30)


def test_margin_includes_the_change_by_more_steps_and_the_top_residual():
    nodes, weights = [[5.0, 1.0]] * 3, [[1.0, 20.0]] * 3
    coarse = (tensor([[5.0, 2.0]] * 3), tensor(weights))
    of_probes = estimate(nodes, weights, coarse)
    assert spectrum.summary(of_probes)[1]["trace"].item() == pytest.approx(20)
    with_residuals = of_probes._replace(residuals=tensor([0.3, 0.1]))
    assert spectrum.summary(with_residuals)[1]["top_eigenvalue"].item() == pytest.approx(0.3)


def test_density_has_a_kernel_at_each_eigenvalue():
    index = int((spectrum.GRID - 0.5).abs().argmin())
    height = 1 / (spectrum.WIDTH * math.sqrt(2 * math.pi))
    values = torch.cat([tensor([7.0]), 7 * spectrum.grid()[[index, index]]])
    density, bound = spectrum.density(spectrum.Spectrum(values, 10))
    assert bound == 0
    assert density[index].item() == pytest.approx(2 / 10 * height)
    # Seven of ten eigenvalues are not given, so they are zero.
    zero = spectrum.GRID.abs().argmin()
    assert density[zero].item() == pytest.approx(7 / 10 * height)
    # The axis ends one kernel width beyond the largest eigenvalue and cuts off 16 % of its kernel.
    area = torch.trapezoid(density, spectrum.GRID).item()
    assert area == pytest.approx(1 - 0.16 / 10, abs=0.001)


def test_density_of_equal_probes_is_that_of_their_eigenvalues():
    values = tensor([3.0, 1.0, -0.5])
    exact = spectrum.density(spectrum.Spectrum(values, 10))[0]
    ones = torch.ones(3).double()
    of_probes = spectrum.Spectrum(values.expand(3, -1), 10, ones.expand(3, -1), (values, ones))
    density, bound = spectrum.density(of_probes)
    torch.testing.assert_close(density, exact)
    assert bound < 1e-12
