"""Ranks of spectra against their definitions in plain loops, and on spectra with known answers."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plasticity.curvature import spectrum as spectra

SIGNED = st.lists(st.integers(-5000, 5000), min_size=1, max_size=12)
POSITIVE = st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any)
RANKS = [spectra.effective_rank, spectra.stable_rank, spectra.entropy_rank, spectra.epsilon_rank]


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


def test_signs_count_as_magnitudes():
    assert spectra.effective_rank(tensor([-1.0, 1.0])) == 2
    assert spectra.epsilon_rank(tensor([-1.0, 1e-9])) == 1
    assert spectra.entropy_rank(tensor([-1.0, 1.0])).item() == pytest.approx(2)


@given(SIGNED, st.integers(1, 100))
def test_effective_rank_is_the_fewest_that_reach_the_level(values, percent):
    magnitudes = sorted(map(abs, values), reverse=True)
    rank = 0
    while sum(magnitudes[:rank]) < Fraction(percent, 100) * sum(magnitudes):
        rank += 1
    assert spectra.effective_rank(tensor(values), percent / 100) == rank


@given(POSITIVE)
def test_stable_rank_is_trace_over_largest(values):
    assert spectra.stable_rank(tensor(values)).item() == pytest.approx(
        sum(values) / max(values), rel=1e-14
    )


@given(SIGNED.filter(any))
def test_entropy_rank_is_the_exponential_of_the_entropy_of_shares(values):
    entropy = 0.0
    for value in values:
        if value:
            share = abs(value) / sum(map(abs, values))
            entropy -= share * math.log(share)
    assert spectra.entropy_rank(tensor(values)).item() == pytest.approx(
        math.exp(entropy), rel=1e-12
    )


@given(SIGNED)
def test_epsilon_rank_counts_what_is_above_a_thousandth_of_the_largest(values):
    assert spectra.epsilon_rank(tensor(values)) == sum(
        1000 * abs(value) > max(map(abs, values)) for value in values
    )


@pytest.mark.parametrize("rank", RANKS)
@given(values=POSITIVE, data=st.data())
def test_order_and_scale_change_no_rank(rank, values, data):
    known = rank(tensor(values)).item()
    assert rank(tensor(data.draw(st.permutations(values)))).item() == pytest.approx(
        known, rel=1e-12
    )
    for scale in (2.0**-40, 2.0**40):
        assert rank(scale * tensor(values)).item() == pytest.approx(known, rel=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@given(values=POSITIVE)
def test_every_rank_lies_between_one_and_the_number_of_nonzero_values(rank, values):
    assert 1 - 1e-12 <= rank(tensor(values)).item() <= sum(map(bool, values)) * (1 + 1e-12)


@pytest.mark.parametrize("planted", [1, 3, 6])
def test_a_planted_low_rank_is_found(planted):
    torch.manual_seed(planted)
    basis = torch.linalg.qr(torch.randn(12, planted).double()).Q
    values = spectra.eigenvalues(basis @ basis.T * 5)
    torch.testing.assert_close(
        values, tensor([5.0] * planted + [0.0] * (12 - planted)), rtol=1e-12, atol=1e-12
    )
    for rank in RANKS:
        assert rank(values).item() == pytest.approx(planted, rel=1e-6)


def test_eigenvalues_are_descending_and_never_below_zero():
    torch.manual_seed(0)
    factor = torch.randn(4, 9, 3).double()
    values = spectra.eigenvalues(factor @ factor.mT)
    assert (values.diff(dim=-1) <= 0).all()
    assert (values >= 0).all()
    torch.testing.assert_close(
        values[:, :3], torch.linalg.svdvals(factor).square(), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_matrix_that_is_not_finite_gives_nan_and_harms_no_other(poison):
    torch.manual_seed(0)
    factor = torch.randn(3, 4, 4).double()
    matrices = factor @ factor.mT
    healthy = spectra.eigenvalues(matrices)
    matrices[1, 2, 3] = poison
    values = spectra.eigenvalues(matrices)
    assert values[1].isnan().all()
    assert torch.equal(values[[0, 2]], healthy[[0, 2]])


@pytest.mark.parametrize("rank", RANKS)
def test_nan_stays_nan_in_its_row_alone(rank):
    ranks = rank(tensor([[2.0, 1.0], [torch.nan, 1.0], [torch.nan, torch.nan], [1.0, 1.0]]))
    assert ranks.isnan().tolist() == [False, True, True, False]
    assert torch.equal(ranks[[0, 3]], rank(tensor([[2.0, 1.0], [1.0, 1.0]])))


def test_of_a_spectrum_of_zeros_counts_are_zero_and_ratios_are_nan():
    zeros = tensor([0.0, 0.0, 0.0])
    assert spectra.effective_rank(zeros) == spectra.epsilon_rank(zeros) == 0
    assert spectra.stable_rank(zeros).isnan()
    assert spectra.entropy_rank(zeros).isnan()


def test_the_numbers_of_a_spectrum_that_is_known_are_those_of_its_values_without_errors():
    values = tensor([[4.0, 2.0, -2.0], [1.0, 0.0, 0.0]])
    numbers, errors = spectra.summary(spectra.Spectrum(values, 5), levels=[0.9, 0.99, 0.5])
    assert numbers.keys() == errors.keys() == spectra.meanings([0.9, 0.99, 0.5]).keys()
    assert numbers["trace"].tolist() == [4.0, 1.0]
    assert numbers["top_eigenvalue"].tolist() == [4.0, 1.0]
    assert numbers["negative_fraction"].tolist() == [0.25, 0.0]
    assert numbers["absolute_epsilon_rank"].tolist() == [3.0, 1.0]
    assert torch.equal(numbers["effective_rank"], spectra.effective_rank(values, 0.9))
    assert torch.equal(numbers["effective_rank_at_0_99"], spectra.effective_rank(values, 0.99))
    assert numbers["effective_rank_at_0_5"].tolist() == [1.0, 1.0]
    for rank in RANKS[1:]:
        assert torch.equal(numbers[rank.__name__], rank(values))
    assert not any(error.any() for error in errors.values())


def known(number, expected):
    """Whether a number is what it should be, NaN where that is NaN."""
    return number.item() == pytest.approx(expected.item(), rel=1e-12, nan_ok=True)


@given(SIGNED, st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_values_that_stand_for_one_eigenvalue_each_have_the_numbers_of_eigenvalues(values, level):
    expected = spectra.numbers(tensor(values), levels=[level])
    for name, number in spectra.numbers(
        tensor(values), torch.ones(len(values)).double(), [level]
    ).items():
        assert known(number, expected[name]), name


@given(SIGNED, st.data())
def test_a_value_that_stands_for_several_eigenvalues_has_the_numbers_of_as_many(values, data):
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(values), max_size=len(values)))
    expected = spectra.numbers(tensor(values).repeat_interleave(torch.tensor(counts)))
    for name, number in spectra.numbers(
        tensor(values), tensor([float(count) for count in counts])
    ).items():
        assert known(number, expected[name]), name


@given(SIGNED, st.data())
def test_a_value_as_two_of_half_its_weight_changes_nothing(values, data):
    weights = tensor(
        data.draw(st.lists(st.floats(0.01, 100), min_size=len(values), max_size=len(values)))
    )
    place = data.draw(st.integers(0, len(values) - 1))
    halves = weights.clone()
    halves[place] /= 2
    whole = spectra.numbers(tensor(values), weights)
    split = spectra.numbers(
        torch.cat([tensor(values), tensor(values)[[place]]]), torch.cat([halves, halves[[place]]])
    )
    for name, number in split.items():
        assert known(number, whole[name]), name


def test_what_stands_for_no_eigenvalue_changes_nothing():
    values, weights = tensor([4.0, -2.0, 1.0]), tensor([1.5, 2.0, 30.0])
    with_zeros = spectra.numbers(
        tensor([4.0, 3.0, -2.0, 1.0, 0.5]), tensor([1.5, 0.0, 2.0, 30.0, 0.0])
    )
    for name, number in spectra.numbers(values, weights).items():
        assert known(with_zeros[name], number), name


def estimate(values, weights, coarse=None):
    """Of three probes with nodes of their own."""
    values, weights = tensor(values), tensor(weights)
    return spectra.Spectrum(values, 100, weights, coarse or (values, weights))


def test_the_standard_error_of_a_mean_of_probes_is_the_classical_one():
    """Of the trace, which is linear in the weights, the jackknife is the deviation of the probes' traces over √3."""
    weights = [[1.0, 20.0], [1.0, 26.0], [1.0, 23.0]]
    spectrum = estimate([[5.0, 1.0], [5.0, 1.0], [5.0, 1.0]], weights)
    numbers, errors = spectra.summary(spectrum)
    assert numbers["trace"].item() == pytest.approx(28)
    assert errors["trace"].item() == pytest.approx(3 / math.sqrt(3))
    assert numbers["epsilon_rank"].item() == pytest.approx(24)
    assert errors["epsilon_rank"].item() == pytest.approx(math.hypot(3 / math.sqrt(3), 23 / 2))
    assert errors["top_eigenvalue"] == 0


def test_the_standard_error_has_what_more_steps_moved_and_the_residual_of_the_top():
    nodes = [[5.0, 1.0]] * 3, [[1.0, 20.0]] * 3
    spectrum = estimate(*nodes, coarse=(tensor([[5.0, 2.0]] * 3), tensor([[1.0, 20.0]] * 3)))
    assert spectra.summary(spectrum)[1]["trace"].item() == pytest.approx(20)
    assert spectra.summary(spectrum._replace(residuals=tensor([0.3, 0.1])))[1][
        "top_eigenvalue"
    ].item() == pytest.approx(0.3)


def test_a_density_has_a_bell_for_each_eigenvalue_where_the_axis_has_it():
    place, height = (
        int((spectra.GRID - 0.5).abs().argmin()),
        1 / (spectra.WIDTH * math.sqrt(2 * math.pi)),
    )
    values = torch.cat([tensor([7.0]), 7 * spectra.grid()[[place, place]]])
    found, bound = spectra.density(spectra.Spectrum(values, 10))
    assert bound == 0
    assert found[place].item() == pytest.approx(2 / 10 * height)
    assert found[spectra.GRID.abs().argmin()].item() == pytest.approx(
        7 / 10 * height
    )  # of the seven that no value is given of
    assert torch.trapezoid(found, spectra.GRID).item() == pytest.approx(
        1 - 0.16 / 10, abs=0.001
    )  # the axis ends a width beyond the largest


def test_the_density_of_an_estimate_whose_probes_agree_is_that_of_its_eigenvalues():
    values = tensor([3.0, 1.0, -0.5])
    whole = spectra.density(spectra.Spectrum(values, 10))[0]
    found, bound = spectra.density(
        spectra.Spectrum(
            values.expand(3, -1), 10, torch.ones(3, 3).double(), (values, torch.ones(3).double())
        )
    )
    torch.testing.assert_close(found, whole)
    assert bound < 1e-12
