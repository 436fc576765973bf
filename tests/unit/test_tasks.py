"""Tasks as pure functions: rebuilt at will, different where they should be, the same where they should be."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from plasticity import tasks
from plasticity.errors import StudyError
from plasticity.settings import Problem

PROBLEM = Problem("tiny", "shuffle_labels", samples=48, batch=7, epochs=3, tasks=5)
SEEDS, INDICES = st.integers(0, 10**6), st.integers(0, 10**4)


@given(seed=SEEDS, index=INDICES)
def test_a_task_is_the_same_however_often_it_is_built_and_whatever_surrounds_it(data, seed, index):
    first = tasks.task(PROBLEM, data, seed, index)
    torch.manual_seed(index)
    np.random.seed(seed)  # noqa: NPY002 # it must play no part
    tasks.task(PROBLEM, data, seed, index + 1)
    for problem in (PROBLEM, replace(PROBLEM, tasks=999), replace(PROBLEM, epochs=1, batch=3)):
        again = tasks.task(problem, data, seed, index)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@given(seed=SEEDS, index=INDICES)
def test_a_task_keeps_the_images_and_the_count_of_each_class(data, seed, index):
    inputs, truth = tasks.subset(PROBLEM, data, seed)
    shuffled_inputs, labels = tasks.task(PROBLEM, data, seed, index)
    assert torch.equal(inputs, shuffled_inputs)
    assert torch.equal(labels.bincount(minlength=4), truth.bincount(minlength=4))
    assert inputs.shape == (48, 2, 2, 3)
    assert (inputs.dtype, labels.dtype) == (torch.float32, torch.int64)


@given(seed=SEEDS)
def test_labels_of_all_tasks_differ_from_each_other_and_from_the_truth(data, seed):
    labels = [tasks.subset(PROBLEM, data, seed)[1], *(tasks.task(PROBLEM, data, seed, index)[1] for index in range(5))]
    assert len({tuple(row.tolist()) for row in labels}) == 6


@given(seed=SEEDS)
def test_seeds_draw_different_images_labels_and_batches(data, seed):
    (here, y), (there, z) = (tasks.task(PROBLEM, data, s, 0) for s in (seed, seed + 1))
    assert not torch.equal(here, there)
    assert not torch.equal(y, z)
    assert not np.array_equal(tasks.batches(PROBLEM, seed, 0), tasks.batches(PROBLEM, seed + 1, 0))


@given(seed=SEEDS)
def test_a_subset_has_distinct_images_with_their_own_labels_standardised(data, seed):
    numbered = data.copy(deep=True)
    numbered["image"].values[:] = 0
    numbered["image"].values[:, 0, 0, 0], numbered["image"].values[:, 1, 1, 2] = np.arange(60) // 10, np.arange(60) % 10
    inputs, labels = tasks.subset(PROBLEM, numbered, seed)
    mean, std = (data[name].values[:, None, None] for name in ("channel_mean", "channel_std"))
    pixels = np.rint((inputs.numpy() * std + mean) * 9).astype(int)
    chosen = 10 * pixels[:, 0, 0, 0] + pixels[:, 1, 1, 2]
    assert len(set(chosen)) == 48
    np.testing.assert_array_equal(labels, data["label"].values[chosen])


def test_all_images_standardised_have_mean_zero_and_deviation_one(data):
    inputs, _ = tasks.subset(replace(PROBLEM, samples=60), data, seed=0)
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-6, atol=0)


def test_stacked_seeds_are_each_seeds_own_task(data):
    inputs, labels = tasks.stacked(PROBLEM, data, [4, 0, 7], 2)
    for row, seed in enumerate([4, 0, 7]):
        x, y = tasks.task(PROBLEM, data, seed, 2)
        assert torch.equal(inputs[row], x)
        assert torch.equal(labels[row], y)


@given(samples=st.integers(2, 40), batch=st.integers(1, 40), epochs=st.integers(1, 4), seed=SEEDS, index=INDICES)
def test_every_epoch_visits_samples_once_and_drops_the_last_partial_batch(samples, batch, epochs, seed, index):
    batch = min(batch, samples)
    problem = Problem("tiny", "shuffle_labels", samples, batch, epochs, tasks=1)
    order = tasks.batches(problem, seed, index)
    assert order.shape == (epochs, samples // batch, batch)
    assert problem.steps == epochs * (samples // batch)
    for epoch in order.reshape(epochs, -1):
        assert len(set(epoch)) == len(epoch) == samples // batch * batch
        assert set(epoch) <= set(range(samples))


@given(seed=SEEDS, index=INDICES)
def test_the_order_of_batches_is_reproducible_and_new_at_every_epoch_and_task(seed, index):
    order = tasks.batches(PROBLEM, seed, index)
    np.testing.assert_array_equal(order, tasks.batches(replace(PROBLEM, tasks=1), seed, index))
    epochs = [*order.reshape(3, -1), *tasks.batches(PROBLEM, seed, index + 1).reshape(3, -1)]
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_more_samples_than_images_is_refused_with_what_to_do(data):
    with pytest.raises(StudyError, match=r"problem\.samples is 61, but tiny has only 60 images: lower "):
        tasks.task(replace(PROBLEM, samples=61), data, 0, 0)
