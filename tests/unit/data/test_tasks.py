"""Tasks as pure functions: rebuilt at will, different where they should be, the same where they should be."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from plasticity.config import registry
from plasticity.config.models import Problem
from plasticity.data import dataset, shift, tasks
from plasticity.errors import StudyError

PROBLEM = Problem("tiny", "shuffle_labels", samples=18, batch=7, epochs=3, tasks=2, test_samples=9)
SEEDS, INDICES = st.integers(0, 10**6), st.integers(0, 60)
OPTIONS = {
    "redraw_labels": {"fraction": 0.3},
    "flip_bits": {"flipping": 5},
    "class_incremental": {"new_classes": 2},
}  # what a change needs, or these images
CHANGES = registry.names("shifts")
ONE_SUBSET = sorted(set(CHANGES) - {"class_pairs", "class_incremental"})


def problem_of(change, **more):
    """The problem above with another change, and what that change needs."""
    options = OPTIONS.get(change, {}) | more.pop("options", {})
    return replace(PROBLEM, shift=change, options=options, **more)


def images_of(data, inputs):
    """Which images of a dataset whose pixels tell them apart these are."""
    mean, std = (data[name].values[:, None, None] for name in ("channel_mean", "channel_std"))
    pixels = np.rint((inputs.numpy() * std + mean) * data.image.attrs["valid_max"]).astype(int)
    return 10 * pixels[:, 0, 0, 0] + pixels[:, 1, 1, 2]


@pytest.fixture(scope="module")
def numbered():
    """Sixty images of four classes, fifteen each, that two of their pixels number."""
    images = np.zeros((60, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 1, 1, 2] = np.arange(60) // 10, np.arange(60) % 10
    return dataset.describe(
        "numbered", dataset.Images(images, np.arange(60) % 4, list("abcd"), 9), {}
    )


@pytest.mark.parametrize("change", CHANGES)
@given(seed=SEEDS, index=INDICES)
def test_a_task_is_the_same_however_often_it_is_built_and_whatever_surrounds_it(
    numbered, change, seed, index
):
    data, problem = numbered, problem_of(change)
    index %= 2 if change == "class_incremental" else 61
    first = tasks.task(problem, data, seed, index)
    torch.manual_seed(index)
    np.random.seed(seed)  # noqa: NPY002 # it must play no part
    tasks.task(problem, data, seed, (index + 1) % 2)
    for same in (
        problem,
        replace(problem, tasks=1),
        replace(problem, epochs=1, batch=3),
        replace(problem, epochs=None, steps_per_task=5),
    ):
        again = tasks.task(same, data, seed, index)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    inputs, labels = first
    assert inputs.shape == (27, 2, 2, 3)
    assert labels.shape == (27,)
    assert (inputs.dtype, labels.dtype) == (
        torch.float32,
        torch.float32 if change == "flip_bits" else torch.int64,
    )
    if change != "flip_bits":
        assert 0 <= labels.min() <= labels.max() < shift.of(problem).outputs(4)


@pytest.mark.parametrize("change", CHANGES)
@given(seed=SEEDS)
def test_seeds_have_different_tasks_and_batches(numbered, change, seed):
    problem = problem_of(change)
    (here, _), (there, _) = (tasks.task(problem, numbered, s, 0) for s in (seed, seed + 1))
    assert not torch.equal(here, there)
    assert not np.array_equal(tasks.batches(problem, seed, 0), tasks.batches(problem, seed + 1, 0))


@pytest.mark.parametrize("change", ["shuffle_labels", "redraw_labels", "memorize"])
@given(seed=SEEDS, index=INDICES)
def test_shuffled_labels_keep_the_images_the_count_of_each_class_and_the_truth_of_test_images(
    data, change, seed, index
):
    inputs, truth = tasks.task(problem_of("stationary"), data, seed, 0)
    altered_inputs, labels = tasks.task(problem_of(change), data, seed, index)
    assert torch.equal(inputs, altered_inputs)
    assert torch.equal(labels[:18].bincount(minlength=4), truth[:18].bincount(minlength=4))
    assert torch.equal(labels[18:], truth[18:])


@given(seed=SEEDS)
def test_shuffled_labels_of_all_tasks_differ_from_each_other_and_from_the_truth(data, seed):
    labels = [tasks.task(problem_of("shuffle_labels"), data, seed, index)[1] for index in range(5)]
    labels += [tasks.task(problem_of("stationary"), data, seed, 0)[1]]
    assert len({tuple(row.tolist()) for row in labels}) == 6


@pytest.mark.parametrize(("change", "tasks_alike"), [("stationary", True), ("memorize", False)])
@given(seed=SEEDS, index=INDICES)
def test_the_controls_never_change(data, change, tasks_alike, seed, index):
    first, later = (tasks.task(problem_of(change), data, seed, at) for at in (0, index))
    assert all(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    truth = data["label"].values[
        shift.of(PROBLEM).choose(shift.Task(PROBLEM, 4, seed, 0), data["label"].values)[0]
    ]
    assert torch.equal(first[1], torch.from_numpy(truth)) == tasks_alike


@pytest.mark.parametrize("first_task", ["changed", "original"])
@given(seed=SEEDS, index=st.integers(1, 30), fraction=st.floats(0, 1, allow_subnormal=False))
def test_redrawing_moves_the_labels_of_just_so_many_images_from_task_to_task(
    numbered, first_task, seed, index, fraction
):
    # a label for every image, so that a moved label shows
    own = numbered.assign(label=("sample", np.arange(60)))
    problem = problem_of("redraw_labels", options={"fraction": fraction, "first_task": first_task})
    before, after = (tasks.task(problem, own, seed, at)[1] for at in (index - 1, index))
    moved = int((before != after).sum())
    assert moved == (count if (count := round(fraction * 18)) != 1 else 0)
    assert (
        torch.equal(
            tasks.task(problem, own, seed, 0)[1],
            tasks.task(problem_of("stationary"), own, seed, 0)[1],
        )
    ) == (first_task == "original")


@given(seed=SEEDS, index=INDICES)
def test_remapping_gives_each_class_another_name_of_its_own(data, seed, index):
    _, truth = tasks.task(problem_of("stationary"), data, seed, 0)
    inputs, labels = tasks.task(problem_of("remap_labels"), data, seed, index)
    pairs = set(zip(truth.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
    assert torch.equal(inputs, tasks.task(problem_of("stationary"), data, seed, 0)[0])


@given(seed=SEEDS)
def test_remappings_change_over_tasks(data, seed):
    assert (
        len(
            {
                tuple(tasks.task(problem_of("remap_labels"), data, seed, index)[1].tolist())
                for index in range(8)
            }
        )
        > 1
    )


@given(seed=SEEDS, index=INDICES)
def test_a_permutation_of_pixels_is_a_bijection_the_same_for_all_images_and_channels(
    data, seed, index
):
    before, labels = tasks.task(problem_of("stationary"), data, seed, 0)
    after, same_labels = tasks.task(problem_of("permute_pixels"), data, seed, index)
    assert torch.equal(labels, same_labels)
    columns = {
        tuple(column.tolist()): place
        for place, column in enumerate(before.flatten(2).permute(2, 0, 1).flatten(1))
    }
    came_from = [
        columns[tuple(column.tolist())] for column in after.flatten(2).permute(2, 0, 1).flatten(1)
    ]
    assert sorted(came_from) == list(range(6))


@given(seed=SEEDS)
def test_pixels_move_otherwise_in_every_task(data, seed):
    assert (
        len(
            {
                tuple(
                    tasks.task(problem_of("permute_pixels"), data, seed, index)[0][0]
                    .flatten()
                    .tolist()
                )
                for index in range(9)
            }
        )
        > 5
    )


@pytest.mark.parametrize("change", ["shuffle_labels", "remap_labels", "permute_pixels"])
@given(seed=SEEDS, index=INDICES)
def test_task_0_can_be_the_original_and_then_is_the_only_one(data, change, seed, index):
    changed, kept = (
        problem_of(change, options={"first_task": first}) for first in ("changed", "original")
    )
    first, truth = (
        tasks.task(kept, data, seed, 0),
        tasks.task(problem_of("stationary"), data, seed, 0),
    )
    assert all(torch.equal(a, b) for a, b in zip(first, truth, strict=True))
    default, later = (tasks.task(problem, data, seed, index + 1) for problem in (changed, kept))
    assert all(torch.equal(a, b) for a, b in zip(default, later, strict=True))
    assert shift.of(problem_of(change)) == shift.of(changed), "changed is the default"


@given(seed=SEEDS, index=INDICES, classes=st.integers(2, 7))
def test_pairs_are_two_classes_in_equal_shares_and_all_have_their_turn(seed, index, classes):
    labels = np.arange(60 * classes) % classes
    problem = replace(problem_of("class_pairs"), samples=25, test_samples=7)
    change, turn = shift.of(problem), classes // 2
    seen = []
    for at in range(index // turn * turn, index // turn * turn + turn):
        places, given_labels = change.choose(shift.Task(problem, classes, seed, at), labels)
        pair = [set(labels[places[given_labels == value]]) for value in (0, 1)]
        assert [len(one) for one in pair] == [1, 1]
        seen += [value for one in pair for value in one]
        assert np.bincount(given_labels[:25]).tolist() == [13, 12]
        assert np.bincount(given_labels[25:]).tolist() == [4, 3]
        assert len(set(places)) == 32
    assert len(set(seen)) == 2 * turn


def test_pairs_come_in_another_order_at_the_next_turn():
    problem, labels = problem_of("class_pairs"), np.arange(400) % 8
    turns = [
        [shift.of(problem).choose(shift.Task(problem, 8, 0, index), labels)[0] for index in turn]
        for turn in (range(4), range(4, 8))
    ]
    assert [sorted(set(labels[places])) for places in turns[0]] != [
        sorted(set(labels[places])) for places in turns[1]
    ]


@given(seed=SEEDS, new=st.integers(1, 2))
def test_classes_come_one_after_the_other_and_stay(data, seed, new):
    labels = np.arange(240) % 4
    problem = replace(
        problem_of("class_incremental", options={"new_classes": new}),
        samples=24,
        test_samples=12,
        tasks=4 // new,
    )
    known: set[int] = set()
    for index in range(4 // new):
        places, now = shift.of(problem).choose(shift.Task(problem, 4, seed, index), labels)
        assert (labels[places] == now).all()
        counts = [np.bincount(part, minlength=4) for part in (now[:24], now[24:])]
        assert all(
            set(count[count > 0]) == {part // (new * (index + 1))}
            for count, part in zip(counts, (24, 12), strict=True)
        )
        assert known < set(now)
        known = set(now)
    assert shift.of(problem).outputs(4) == 4


@given(seed=SEEDS, index=st.integers(1, 40))
def test_one_of_the_flipping_bits_flips_and_targets_are_of_one_fixed_network(seed, index):
    bits = registry.build("datasets", "bits", {"inputs": 9, "images": 200})
    data = dataset.describe("bits", bits.load(None), {})
    problem = replace(
        problem_of("flip_bits", options={"flipping": 6}),
        dataset="bits",
        samples=150,
        test_samples=0,
    )
    (before, _), (after, targets) = (
        tasks.task(problem, data, seed, at) for at in (index - 1, index)
    )
    assert set(after.unique().tolist()) == {-1.0, 1.0}
    changed = (before != after).flatten(1)
    assert changed[:, :6].all(dim=0).sum() == changed[:, :6].any(dim=0).sum() == 1
    assert not changed[:, 6:].any()
    patterns = {tuple(row.flatten().tolist()) for row in after}
    assert (
        len(
            {
                (*row.flatten().tolist(), target)
                for row, target in zip(after, targets.tolist(), strict=True)
            }
        )
        == len(patterns)
        > 4
    )
    # the target, written out unit by unit
    draw = shift.Task(problem, 1, seed, 0).generator("target", 0)
    weights, heads = 2 * draw.integers(0, 2, (10, 100)) - 1, 2 * draw.integers(0, 2, 101) - 1
    zero_one = [int(bit > 0) for bit in after[0].flatten()] + [1]
    fires = [
        sum(w * x for w, x in zip(unit, zero_one, strict=True))
        >= 0.7 * 10 - sum(w == -1 for w in unit)
        for unit in weights.T
    ]
    assert targets[0] == heads[-1] + sum(
        head for head, fire in zip(heads[:-1], fires, strict=True) if fire
    )


def test_more_flipping_bits_than_inputs_are_refused(data):
    with pytest.raises(
        StudyError,
        match=r"problem\.flipping is 15, but an image of tiny has only 12 inputs: lower it",
    ):
        tasks.task(replace(PROBLEM, shift="flip_bits"), data, 0, 0)


@pytest.mark.parametrize("change", ONE_SUBSET)
@given(seed=SEEDS)
def test_a_subset_has_distinct_images_and_training_ones_do_not_depend_on_test_ones(
    numbered, change, seed
):
    if change in {"permute_pixels", "flip_bits"}:
        return
    inputs, _ = tasks.task(problem_of(change), numbered, seed, 2)
    assert len(set(images_of(numbered, inputs))) == 27
    alone, _ = tasks.task(problem_of(change, test_samples=0), numbered, seed, 2)
    assert torch.equal(inputs[:18], alone)


@given(seed=SEEDS)
def test_images_keep_their_own_labels_standardised(numbered, seed):
    inputs, labels = tasks.task(problem_of("stationary"), numbered, seed, 0)
    np.testing.assert_array_equal(labels, numbered["label"].values[images_of(numbered, inputs)])


def test_all_images_standardised_have_mean_zero_and_deviation_one(data):
    inputs, _ = tasks.task(problem_of("stationary", samples=60, test_samples=0), data, 0, 0)
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        inputs.std((0, 2, 3), correction=0), torch.ones(2), rtol=1e-6, atol=0
    )


def test_stacked_seeds_are_each_seeds_own_task(data):
    inputs, labels = tasks.stacked(PROBLEM, data, [4, 0, 7], 2)
    for row, seed in enumerate([4, 0, 7]):
        x, y = tasks.task(PROBLEM, data, seed, 2)
        assert torch.equal(inputs[row], x)
        assert torch.equal(labels[row], y)


@given(
    samples=st.integers(2, 40),
    batch=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=SEEDS,
    index=INDICES,
)
def test_every_epoch_visits_samples_once_and_drops_the_last_partial_batch(
    samples, batch, epochs, seed, index
):
    batch = min(batch, samples)
    problem = Problem("tiny", "shuffle_labels", samples, batch, epochs, tasks=1)
    order = tasks.batches(problem, seed, index)
    assert order.shape == (epochs * (samples // batch), batch)
    assert problem.steps == epochs * (samples // batch)
    for epoch in order.reshape(epochs, -1):
        assert len(set(epoch)) == len(epoch) == samples // batch * batch
        assert set(epoch) <= set(range(samples))


@given(steps=st.integers(1, 30), seed=SEEDS)
def test_a_budget_in_steps_is_the_beginning_of_one_in_epochs(steps, seed):
    budget = replace(PROBLEM, epochs=None, steps_per_task=steps)
    order = tasks.batches(budget, seed, 3)
    assert order.shape == (steps, 7)
    np.testing.assert_array_equal(
        order, tasks.batches(replace(PROBLEM, epochs=20), seed, 3)[:steps]
    )


@given(seed=SEEDS, index=INDICES)
def test_the_order_of_batches_is_reproducible_and_new_at_every_epoch_and_task(seed, index):
    order = tasks.batches(PROBLEM, seed, index)
    np.testing.assert_array_equal(order, tasks.batches(replace(PROBLEM, tasks=1), seed, index))
    epochs = [*order.reshape(3, -1), *tasks.batches(PROBLEM, seed, index + 1).reshape(3, -1)]
    assert len({tuple(epoch) for epoch in epochs}) == 6


REFUSED = {
    "more images than there are": (
        problem_of("stationary", samples=61, test_samples=0),
        0,
        r"problem\.samples takes 61 images of tiny, .*60",
    ),
    "with test images": (
        problem_of("stationary", samples=55),
        0,
        r"problem\.samples \+ problem\.test_samples takes 64 images of tiny",
    ),
    "of a class": (
        problem_of("class_pairs", samples=58, test_samples=0),
        0,
        r"takes 29 images of class \d of tiny, which has only \d+: low",
    ),
    "more classes": (
        problem_of("class_incremental", tasks=3),
        0,
        r"problem\.tasks is 3, each with 2 new classes, but tiny has only 4: lower",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_dataset_cannot_give_is_refused_with_what_to_do(data, name):
    problem, index, sentence = REFUSED[name]
    with pytest.raises(StudyError, match=sentence):
        tasks.task(problem, data, 0, index)


def test_one_class_cannot_be_paired(data):
    alone = dataset.describe(
        "alone", dataset.Images(data.image.values, np.zeros(60, int), ["a"], 9), {}
    )
    with pytest.raises(
        StudyError, match="class_pairs needs two classes, and tiny has 1: choose another"
    ):
        tasks.task(problem_of("class_pairs"), alone, 0, 0)


def pixels(images):
    """A dataset of these images, shape ``(sample, pixel)``."""
    return dataset.describe(
        "drawn", dataset.Images(images[:, None, None], np.arange(len(images)) % 2, ["a", "b"]), {}
    )


@given(seed=SEEDS, n=st.integers(2, 20))
def test_images_are_separable_when_a_linear_map_fits_any_labels(seed, n):
    draw = np.random.default_rng(seed)
    data = pixels(draw.integers(0, 256, (20, 19), np.uint8))
    problem = Problem("drawn", "stationary", samples=n, batch=2, epochs=1, tasks=1, separable=True)
    condition = tasks.check_separable(problem, data, seed)
    inputs, _ = tasks.task(problem, data, seed, 0)
    X = torch.cat([inputs.flatten(1), torch.ones(n, 1)], dim=1).double()
    targets = torch.from_numpy(draw.normal(size=(n, 3)))
    torch.testing.assert_close(X @ (torch.linalg.pinv(X) @ targets), targets)
    assert condition == pytest.approx(float(torch.linalg.cond(X)), rel=1e-6)


def test_images_that_are_not_separable_are_refused_with_their_rank():
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (30, 19), np.uint8)
    problem = Problem("drawn", "stationary", samples=20, batch=2, epochs=1, tasks=1, separable=True)
    sentence = r"the 21 images of drawn that seed 3 draws are not linearly separable under any labels \(\[X, 1\] has rank 20\): lower"
    with pytest.raises(StudyError, match=sentence):
        tasks.check_separable(replace(problem, samples=21), pixels(images), 3)
    images[:, 0] = images[:, 1]
    with pytest.raises(StudyError, match=r"has rank 19\)"):
        tasks.check_separable(problem, pixels(images), 3)


def test_images_that_float32_cannot_tell_apart_are_refused_with_their_condition_number():
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (20, 19), np.uint8)
    data = pixels(images)
    data["channel_std"][:] = 1e-7  # the constant column is lost beside such pixels
    problem = Problem("drawn", "stationary", samples=20, batch=2, epochs=1, tasks=1, separable=True)
    with pytest.raises(StudyError, match=r"\[X, 1\] has a condition number of \de\+\d+\)"):
        tasks.check_separable(problem, data, 0)
