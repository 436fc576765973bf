"""Ranks of spectra against their definitions in plain loops, and on spectra with known answers."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plasticity import spectra

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
        ([98.0, 1.0, 1.0], 2, 100 / 98, math.exp(-0.98 * math.log(0.98) - 0.02 * math.log(0.01)), 3),
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
    assert spectra.stable_rank(tensor(values)).item() == pytest.approx(sum(values) / max(values), rel=1e-14)


@given(SIGNED.filter(any))
def test_entropy_rank_is_the_exponential_of_the_entropy_of_shares(values):
    entropy = 0.0
    for value in values:
        if value:
            share = abs(value) / sum(map(abs, values))
            entropy -= share * math.log(share)
    assert spectra.entropy_rank(tensor(values)).item() == pytest.approx(math.exp(entropy), rel=1e-12)


@given(SIGNED)
def test_epsilon_rank_counts_what_is_above_a_thousandth_of_the_largest(values):
    assert spectra.epsilon_rank(tensor(values)) == sum(1000 * abs(value) > max(map(abs, values)) for value in values)


@pytest.mark.parametrize("rank", RANKS)
@given(values=POSITIVE, data=st.data())
def test_order_and_scale_change_no_rank(rank, values, data):
    known = rank(tensor(values)).item()
    assert rank(tensor(data.draw(st.permutations(values)))).item() == pytest.approx(known, rel=1e-12)
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
    torch.testing.assert_close(values, tensor([5.0] * planted + [0.0] * (12 - planted)), rtol=1e-12, atol=1e-12)
    for rank in RANKS:
        assert rank(values).item() == pytest.approx(planted, rel=1e-6)


def test_eigenvalues_are_descending_and_never_below_zero():
    torch.manual_seed(0)
    factor = torch.randn(4, 9, 3).double()
    values = spectra.eigenvalues(factor @ factor.mT)
    assert (values.diff(dim=-1) <= 0).all()
    assert (values >= 0).all()
    torch.testing.assert_close(values[:, :3], torch.linalg.svdvals(factor).square(), rtol=1e-10, atol=0)


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


def test_the_summary_has_the_names_that_it_describes_each_numbers_own_value_and_no_errors():
    values = tensor([[4.0, 2.0, 2.0], [1.0, 0.0, 0.0]])
    levels = (0.99, 0.5)
    summary, errors = spectra.summary(spectra.Spectrum(values, size=3), levels)
    assert set(summary) == set(errors) == set(spectra.meanings(levels))
    assert summary["trace"].tolist() == [8.0, 1.0]
    assert summary["top_eigenvalue"].tolist() == [4.0, 1.0]
    assert summary["effective_rank_at_0_5"].tolist() == [1.0, 1.0]
    for rank in RANKS:
        assert torch.equal(summary[rank.__name__], rank(values))
    assert not any(error.any() for error in errors.values())


@pytest.mark.parametrize("rank", [*RANKS, spectra.negative_fraction])
@given(values=SIGNED.filter(any))
def test_a_value_split_into_two_nodes_of_half_weight_changes_nothing(rank, values):
    known = rank(tensor(values)).item()
    same = {"rel": 1e-9, "abs": 1 - 1e-9 if rank is spectra.effective_rank else 1e-9}  # weighted, it need not be whole
    ones, halves = (torch.full((count,), 1 / part, dtype=torch.float64) for part, count in ((1, len(values)), (2, 2 * len(values))))
    assert rank(tensor(values), weights=ones).item() == pytest.approx(known, **same)
    assert rank(tensor(values + values), weights=halves).item() == pytest.approx(known, **same)


def test_the_negative_fraction_is_that_of_the_magnitudes():
    assert spectra.negative_fraction(tensor([3.0, -1.0])).item() == 0.25
    assert spectra.negative_fraction(tensor([3.0, -1.0]), tensor([1.0, 3.0])).item() == 0.5
