"""The tasks of each stage, and the steps at which a learning curve has its points."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity.config.models import Problem, Training
from plasticity.training.outcomes import curve_steps, stage_masks, stages

PROBLEM = Problem("tiny", "shuffle_labels", samples=10, batch=10, epochs=40, tasks=1)


@pytest.mark.parametrize(
    ("steps", "points", "expected"),
    [
        (40, 4, [10, 20, 30, 40]),
        (40, 1, [40]),
        (40, 7, [5, 11, 17, 22, 28, 34, 40]),
        (3, 10, [1, 2, 3]),  # at most one a step
        (1, 1, [1]),
    ],
)
def test_curve_points_are_the_ends_of_equal_stretches(steps, points, expected):
    assert curve_steps(replace(PROBLEM, epochs=steps), Training(curve_points=points)) == expected


@given(steps=st.integers(1, 5000), points=st.integers(1, 300))
def test_stretches_cover_all_steps_and_differ_by_at_most_one_step(steps, points):
    ends = curve_steps(replace(PROBLEM, epochs=steps), Training(curve_points=points))
    lengths = {end - start for start, end in zip([0, *ends], ends, strict=False)}
    assert len(ends) == min(steps, points)
    assert ends[-1] == steps
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("tasks", "early", "late"),
    [
        (40, [1, 2, 3, 4, 5], [35, 36, 37, 38, 39]),
        (30, [1, 2, 3], [27, 28, 29]),
        (5, [1], [4]),
        (2, [1], [1]),
        (1, [0], [0]),
    ],
)
def test_early_and_late_are_equally_long_and_leave_out_the_untrained_network(tasks, early, late):
    numbers = list(range(tasks))
    windows = stages(tasks)
    assert numbers[windows["early"]] == early
    assert numbers[windows["late"]] == late
    assert numbers[windows["all"]] == numbers


def test_measured_tasks_belong_to_the_stage_of_their_number():
    masks = stage_masks([0, 2, 10, 36, 38], tasks=40)
    assert masks["early"].tolist() == [False, True, False, False, False]
    assert masks["late"].tolist() == [False, False, False, True, True]
    assert masks["all"].all()
    assert not stage_masks([0, 12, 24], tasks=40)["early"].any()
