"""Weights of steps, by which update norms are estimated from some of them."""

import numpy as np
import pytest

from plasticity.training.recorder import step_weights


@pytest.mark.parametrize("steps", [1, 9, 10, 11, 25, 60, 499, 1234])
def test_step_weights_cover_all_steps(
    steps,
):
    counts = step_weights(steps, task=3)
    assert counts.shape == (steps,)
    assert (counts[:10] == 1).all()
    assert counts.sum() == steps
    length = max(10, steps // 50)
    for start in range(10, steps, length):
        stretch = counts[start : start + length]
        assert sorted(stretch)[:-1] == [0] * (len(stretch) - 1)
        assert max(stretch) == len(stretch)


def test_weighted_sum_over_steps_is_unbiased():
    series = np.exp(-np.arange(57) / 15) + 0.1 * np.cos(np.arange(57))
    sums = np.array([step_weights(57, task) @ series for task in range(3000)])
    error = sums.std(ddof=1) / np.sqrt(len(sums))
    assert 0 < error < 0.002 * series.sum()
    assert abs(sums.mean() - series.sum()) < 3 * error
