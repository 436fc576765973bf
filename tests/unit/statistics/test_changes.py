"""How far runs moved since their first task."""

import numpy as np
import pytest

from plasticity.statistics.changes import compute_change, first_and_late, growth_of_gap

TASKS = 24  # early are tasks 1 to 3, late 21 to 23


def test_growth_of_the_gap_equals_a_loop():
    gaps = np.random.default_rng(0).normal(size=(5, TASKS))
    expected = [sum(run[task] for task in (21, 22, 23)) / 3 - run[0] for run in gaps]
    assert growth_of_gap(gaps) == pytest.approx(expected)


def test_plasticity_that_is_lost_in_the_second_task_is_lost():
    """Seed 2 of separable MNIST with ReLU, at the full budget."""
    gaps = np.array([[0.0] + [0.873] * 49])
    early, late = gaps[:, 1:7].mean(), gaps[:, 44:].mean()
    assert late - early == pytest.approx(0)
    assert growth_of_gap(gaps) == pytest.approx(0.873)


def test_constant_handicap_of_a_method_is_no_growth():
    """A strong penalty makes each task hard, also the first one."""
    assert growth_of_gap(np.full((3, TASKS), 0.13)) == pytest.approx(0)


def test_growth_needs_two_tasks():
    assert np.isnan(growth_of_gap(np.ones((2, 1)))).all()
    assert growth_of_gap(np.array([[0.1, 0.5]])) == pytest.approx(0.4)


def test_measure_is_compared_with_the_first_trained_network():
    values = np.random.default_rng(1).normal(size=(4, TASKS))
    first, late = first_and_late(values, range(TASKS), TASKS)
    assert first == pytest.approx(values[:, 1])  # at the start of the second task
    assert late == pytest.approx(values[:, 21:].mean(axis=1))


@pytest.mark.parametrize(
    ("measured", "first_column"), [([0, 2, 3, 12, 22], 1), ([1, 2, 23], 0), ([3, 21], 0)]
)
def test_first_measured_early_task_counts(measured, first_column):
    values = np.random.default_rng(2).normal(size=(4, len(measured)))
    first, _ = first_and_late(values, measured, TASKS)
    assert first == pytest.approx(values[:, first_column])


@pytest.mark.parametrize("measured", [[0, 12, 22], [0, 1, 2], []])
def test_measure_that_was_not_taken_early_and_late_has_no_change(measured):
    first, late = first_and_late(np.ones((2, len(measured))), measured, TASKS)
    assert np.isnan(first).all()
    assert np.isnan(late).all()


def test_change_of_a_share_is_absolute_and_that_of_others_relative():
    before, after = np.array([0.5, 0.0]), np.array([0.25, 0.0])
    assert compute_change("dead_fraction", before, after) == pytest.approx([-0.25, 0])
    assert compute_change("weight_norm", before, after) == pytest.approx([-0.5, 0])
