"""Tasks are pure functions of problem, dataset, seed and index. Shifts change what they claim."""

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
SEEDS = st.integers(0, 10**6)
INDICES = st.integers(0, 60)
OPTIONS = {  # required options, and options that fit the tiny images
    "redraw_labels": {"fraction": 0.3},
    "flip_bits": {"flipping": 5},
    "class_incremental": {"new_classes": 2},
}
SHIFTS = registry.names("shifts")
SHIFTS_OF_INPUTS = {"permute_pixels", "flip_bits"}
SHIFTS_OF_CLASSES = {"class_pairs", "class_incremental"}
SHIFTS_OF_LABELS = sorted(set(SHIFTS) - SHIFTS_OF_INPUTS - SHIFTS_OF_CLASSES)


def make_problem(name, *, options=None, **fields):
    """Return `PROBLEM` with another shift, its options, and other fields."""
    return replace(PROBLEM, shift=name, options=OPTIONS.get(name, {}) | (options or {}), **fields)


def build_inputs(problem, data, seed, index):
    inputs, _ = tasks.build_task(problem, data, seed, index)
    return inputs


def build_labels(problem, data, seed, index):
    _, labels = tasks.build_task(problem, data, seed, index)
    return labels


def are_equal(first, second):
    """Compare the inputs and labels of two tasks."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def choose(problem, classes, seed, index, labels):
    """Return the indices and labels that the problem's shift chooses."""
    return shift.build_shift(problem).choose(shift.Task(problem, classes, seed, index), labels)


@pytest.fixture(scope="module")
def numbered():
    """Return sixty images of four classes, fifteen of each, whose pixels encode their index."""
    index = np.arange(60)
    images = np.zeros((60, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = index // 10
    images[:, 1, 1, 2] = index % 10
    loaded = dataset.Images(images, index % 4, list("abcd"), 9)
    return dataset.describe("numbered", loaded, {})


def indices_of_images(numbered, inputs):
    """Return the indices of standardised images in the dataset `numbered`."""
    mean = numbered["channel_mean"].values[:, None, None]
    std = numbered["channel_std"].values[:, None, None]
    scaled = (inputs.numpy() * std + mean) * numbered.image.attrs["valid_max"]
    pixels = np.rint(scaled).astype(int)
    return 10 * pixels[:, 0, 0, 0] + pixels[:, 1, 1, 2]


def test_pixels_are_standardized_or_in_a_fixed_range(numbered):
    indices = indices_of_images(numbered, build_inputs(make_problem("stationary"), numbered, 3, 0))
    pixels = numbered["image"].values[indices] / 9  # the largest value
    for scaling, expected in {"unit": pixels, "symmetric": 2 * pixels - 1}.items():
        problem = make_problem("stationary", scaling=scaling)
        inputs = build_inputs(problem, numbered, 3, 0)
        np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-6, atol=1e-7)
        assert inputs.dtype == torch.float32
    everything = numbered["image"].values / 9
    mean, std = (
        getattr(everything, name)(axis=(0, 2, 3), keepdims=True) for name in ("mean", "std")
    )
    inputs = build_inputs(make_problem("stationary"), numbered, 3, 0)
    np.testing.assert_allclose(inputs.numpy(), (pixels - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHIFTS)
@given(seed=SEEDS, index=INDICES)
def test_task_depends_only_on_problem_seed_and_index(numbered, name, seed, index):
    problem = make_problem(name)
    index %= 2 if name == "class_incremental" else 61
    first = tasks.build_task(problem, numbered, seed, index)
    torch.manual_seed(index)
    np.random.seed(seed)  # noqa: NPY002 # global state must not matter
    tasks.build_task(problem, numbered, seed, (index + 1) % 2)
    other_budgets = [
        problem,
        replace(problem, tasks=1),
        replace(problem, epochs=1, batch=3),
        replace(problem, epochs=None, steps_per_task=5),
    ]
    for other_budget in other_budgets:
        assert are_equal(tasks.build_task(other_budget, numbered, seed, index), first)


@pytest.mark.parametrize("name", SHIFTS)
@given(seed=SEEDS, index=INDICES)
def test_inputs_and_labels_have_the_documented_shapes_and_types(numbered, name, seed, index):
    problem = make_problem(name)
    index %= 2 if name == "class_incremental" else 61
    inputs, labels = tasks.build_task(problem, numbered, seed, index)
    assert inputs.shape == (27, 2, 2, 3)
    assert inputs.dtype == torch.float32
    assert labels.shape == (27,)
    if name == "flip_bits":
        assert labels.dtype == torch.float32
    else:
        assert labels.dtype == torch.int64
        assert 0 <= labels.min() <= labels.max() < shift.build_shift(problem).outputs(4)


@pytest.mark.parametrize("name", SHIFTS)
@given(seed=SEEDS)
def test_seeds_have_different_images_and_batches(numbered, name, seed):
    problem = make_problem(name)
    first = build_inputs(problem, numbered, seed, 0)
    second = build_inputs(problem, numbered, seed + 1, 0)
    assert not torch.equal(first, second)
    assert not np.array_equal(
        tasks.draw_batches(problem, seed, 0), tasks.draw_batches(problem, seed + 1, 0)
    )


@pytest.mark.parametrize("name", ["shuffle_labels", "redraw_labels", "memorize"])
@given(seed=SEEDS, index=INDICES)
def test_shuffled_labels_keep_images_class_counts_and_test_labels(data, name, seed, index):
    true_inputs, true_labels = tasks.build_task(make_problem("stationary"), data, seed, 0)
    inputs, labels = tasks.build_task(make_problem(name), data, seed, index)
    assert torch.equal(inputs, true_inputs)
    counts, true_counts = (part[:18].bincount(minlength=4) for part in (labels, true_labels))
    assert torch.equal(counts, true_counts)
    assert torch.equal(labels[18:], true_labels[18:])


@given(seed=SEEDS)
def test_shuffled_labels_differ_between_tasks_and_from_true_labels(data, seed):
    shuffled, stationary = make_problem("shuffle_labels"), make_problem("stationary")
    labels = [build_labels(shuffled, data, seed, index) for index in range(5)]
    labels.append(build_labels(stationary, data, seed, 0))
    assert len({tuple(row.tolist()) for row in labels}) == 6


@pytest.mark.parametrize(("name", "has_true_labels"), [("stationary", True), ("memorize", False)])
@given(seed=SEEDS, index=INDICES)
def test_tasks_of_controls_are_all_equal(data, name, has_true_labels, seed, index):
    problem = make_problem(name)
    first = tasks.build_task(problem, data, seed, 0)
    assert are_equal(tasks.build_task(problem, data, seed, index), first)
    all_labels = data["label"].values
    indices, _ = choose(PROBLEM, 4, seed, 0, all_labels)
    true_labels = torch.from_numpy(all_labels[indices])
    assert torch.equal(first[1], true_labels) == has_true_labels


@pytest.fixture(scope="module")
def distinct_labels(numbered):
    """Return the images with one class each, so that every moved label is visible."""
    return numbered.assign(label=("sample", np.arange(60)))


@pytest.mark.parametrize("first_task", ["changed", "original"])
@given(seed=SEEDS, index=st.integers(1, 30), fraction=st.floats(0, 1, allow_subnormal=False))
def test_redrawing_moves_the_given_fraction_of_labels(
    distinct_labels, first_task, seed, index, fraction
):
    options = {"fraction": fraction, "first_task": first_task}
    problem = make_problem("redraw_labels", options=options)
    previous_labels = build_labels(problem, distinct_labels, seed, index - 1)
    labels = build_labels(problem, distinct_labels, seed, index)
    redrawn = round(fraction * 18)
    moved = 0 if redrawn == 1 else redrawn  # one image exchanges its label with itself
    assert int((labels != previous_labels).sum()) == moved


@pytest.mark.parametrize("first_task", ["changed", "original"])
@given(seed=SEEDS, fraction=st.floats(0, 1, allow_subnormal=False))
def test_redrawing_starts_from_true_labels_only_if_the_first_task_is_original(
    distinct_labels, first_task, seed, fraction
):
    options = {"fraction": fraction, "first_task": first_task}
    problem = make_problem("redraw_labels", options=options)
    labels = build_labels(problem, distinct_labels, seed, 0)
    true_labels = build_labels(make_problem("stationary"), distinct_labels, seed, 0)
    assert torch.equal(labels, true_labels) == (first_task == "original")


@given(seed=SEEDS, index=INDICES)
def test_remapping_is_a_bijection_of_classes(data, seed, index):
    true_inputs, true_labels = tasks.build_task(make_problem("stationary"), data, seed, 0)
    inputs, labels = tasks.build_task(make_problem("remap_labels"), data, seed, index)
    pairs = set(zip(true_labels.tolist(), labels.tolist(), strict=True))
    old_names = {old for old, _ in pairs}
    new_names = {new for _, new in pairs}
    assert len(pairs) == len(old_names) == len(new_names)
    assert torch.equal(inputs, true_inputs)


@given(seed=SEEDS)
def test_remapping_differs_between_tasks(data, seed):
    problem = make_problem("remap_labels")
    labels = [build_labels(problem, data, seed, index) for index in range(8)]
    assert len({tuple(row.tolist()) for row in labels}) > 1


def pixels_as_columns(inputs):
    """Return the values of each pixel in all images and channels as one tuple."""
    columns = inputs.flatten(2).permute(2, 0, 1).flatten(1)
    return [tuple(column.tolist()) for column in columns]


@given(seed=SEEDS, index=INDICES)
def test_pixel_permutation_is_a_bijection_shared_by_images_and_channels(data, seed, index):
    inputs, labels = tasks.build_task(make_problem("stationary"), data, seed, 0)
    permuted, same_labels = tasks.build_task(make_problem("permute_pixels"), data, seed, index)
    assert torch.equal(labels, same_labels)
    original_position = {column: place for place, column in enumerate(pixels_as_columns(inputs))}
    order = [original_position[column] for column in pixels_as_columns(permuted)]
    assert sorted(order) == list(range(6))


@given(seed=SEEDS)
def test_pixel_permutation_differs_between_tasks(data, seed):
    problem = make_problem("permute_pixels")
    first_images = [build_inputs(problem, data, seed, index)[0] for index in range(9)]
    assert len({tuple(image.flatten().tolist()) for image in first_images}) > 5


@pytest.mark.parametrize("name", ["shuffle_labels", "remap_labels", "permute_pixels"])
@given(seed=SEEDS, index=INDICES)
def test_first_task_original_changes_only_task_0(data, name, seed, index):
    changed = make_problem(name, options={"first_task": "changed"})
    original = make_problem(name, options={"first_task": "original"})
    stationary = make_problem("stationary")
    first = tasks.build_task(original, data, seed, 0)
    assert are_equal(first, tasks.build_task(stationary, data, seed, 0))
    later = tasks.build_task(original, data, seed, index + 1)
    assert are_equal(later, tasks.build_task(changed, data, seed, index + 1))


@pytest.mark.parametrize("name", ["shuffle_labels", "remap_labels", "permute_pixels"])
def test_first_task_is_changed_by_default(name):
    changed = make_problem(name, options={"first_task": "changed"})
    assert shift.build_shift(make_problem(name)) == shift.build_shift(changed)


@given(seed=SEEDS, index=INDICES, classes=st.integers(2, 7))
def test_pairs_have_two_balanced_classes_and_no_class_recurs_in_an_order(seed, index, classes):
    labels = np.arange(60 * classes) % classes
    problem = make_problem("class_pairs", samples=25, test_samples=7)
    pairs_per_order = classes // 2
    first = index // pairs_per_order * pairs_per_order
    classes_of_order = []
    for task in range(first, first + pairs_per_order):
        indices, pair_labels = choose(problem, classes, seed, task, labels)
        for pair_label in (0, 1):
            [label] = set(labels[indices[pair_labels == pair_label]])
            classes_of_order.append(label)
        assert np.bincount(pair_labels[:25]).tolist() == [13, 12]
        assert np.bincount(pair_labels[25:]).tolist() == [4, 3]
        assert len(set(indices)) == 32
    assert len(set(classes_of_order)) == 2 * pairs_per_order


def test_next_order_has_other_pairs():
    problem, labels = make_problem("class_pairs"), np.arange(400) % 8

    def pairs(indices_of_tasks):
        chosen = [choose(problem, 8, 0, index, labels)[0] for index in indices_of_tasks]
        return [sorted(set(labels[indices])) for indices in chosen]

    assert pairs(range(4)) != pairs(range(4, 8))


@given(seed=SEEDS, new=st.integers(1, 2))
def test_incremental_classes_are_balanced_and_stay(seed, new):
    labels = np.arange(240) % 4
    problem = make_problem(
        "class_incremental",
        options={"new_classes": new},
        samples=24,
        test_samples=12,
        tasks=4 // new,
    )
    previous_classes: set[int] = set()
    for index in range(4 // new):
        indices, task_labels = choose(problem, 4, seed, index, labels)
        assert (labels[indices] == task_labels).all()
        classes = new * (index + 1)
        train_counts = np.bincount(task_labels[:24], minlength=4)
        test_counts = np.bincount(task_labels[24:], minlength=4)
        assert set(train_counts[train_counts > 0]) == {24 // classes}
        assert set(test_counts[test_counts > 0]) == {12 // classes}
        assert previous_classes < set(task_labels)
        previous_classes = set(task_labels)
    assert shift.build_shift(problem).outputs(4) == 4


@pytest.fixture(scope="module")
def bits():
    """Return 200 images of nine random bits."""
    source = registry.build("datasets", "bits", {"inputs": 9, "images": 200})
    return dataset.describe("bits", source.load(None), {})


BITS_PROBLEM = make_problem(
    "flip_bits", options={"flipping": 6}, dataset="bits", samples=150, test_samples=0
)


@given(seed=SEEDS, index=st.integers(1, 40))
def test_one_flipping_bit_flips_in_all_images(bits, seed, index):
    previous = build_inputs(BITS_PROBLEM, bits, seed, index - 1)
    inputs = build_inputs(BITS_PROBLEM, bits, seed, index)
    assert set(inputs.unique().tolist()) == {-1.0, 1.0}
    flipped = (inputs != previous).flatten(1)
    flipped_in_all_images = flipped[:, :6].all(dim=0).sum()
    flipped_in_any_image = flipped[:, :6].any(dim=0).sum()
    assert flipped_in_all_images == flipped_in_any_image == 1
    assert not flipped[:, 6:].any()


@given(seed=SEEDS, index=st.integers(1, 40))
def test_target_is_a_function_of_the_bits(bits, seed, index):
    inputs, targets = tasks.build_task(BITS_PROBLEM, bits, seed, index)
    patterns = [tuple(row.flatten().tolist()) for row in inputs]
    pairs = set(zip(patterns, targets.tolist(), strict=True))
    assert len(pairs) == len(set(patterns)) > 4


@given(seed=SEEDS, index=st.integers(1, 40))
def test_target_equals_the_target_network_written_out(bits, seed, index):
    inputs, targets = tasks.build_task(BITS_PROBLEM, bits, seed, index)
    draw = shift.Task(BITS_PROBLEM, 1, seed, 0).generator("target", 0)
    weights = 2 * draw.integers(0, 2, (10, 100)) - 1
    output_weights = 2 * draw.integers(0, 2, 101) - 1
    bits_and_one = [int(bit > 0) for bit in inputs[0].flatten()] + [1]
    expected = output_weights[-1]
    for unit, output_weight in zip(weights.T, output_weights[:-1], strict=True):
        weighted_sum = sum(w * x for w, x in zip(unit, bits_and_one, strict=True))
        negative_weights = sum(w == -1 for w in unit)
        if weighted_sum >= 0.7 * 10 - negative_weights:
            expected += output_weight
    assert targets[0] == expected


def test_more_flipping_bits_than_inputs_are_refused(data):
    message = (
        r"problem\.flipping is 15, but an image of tiny has only 12 inputs. Lower problem\.flipping"
    )
    with pytest.raises(StudyError, match=message):
        tasks.build_task(replace(PROBLEM, shift="flip_bits"), data, 0, 0)


@pytest.mark.parametrize("name", SHIFTS_OF_LABELS)
@given(seed=SEEDS)
def test_subset_has_distinct_images_and_its_training_part_ignores_test_samples(
    numbered, name, seed
):
    inputs = build_inputs(make_problem(name), numbered, seed, 2)
    assert len(set(indices_of_images(numbered, inputs))) == 27
    train_inputs = build_inputs(make_problem(name, test_samples=0), numbered, seed, 2)
    assert torch.equal(inputs[:18], train_inputs)


@given(seed=SEEDS)
def test_stationary_images_have_their_true_labels(numbered, seed):
    inputs, labels = tasks.build_task(make_problem("stationary"), numbered, seed, 0)
    true_labels = numbered["label"].values[indices_of_images(numbered, inputs)]
    np.testing.assert_array_equal(labels, true_labels)


def test_standardised_images_have_mean_0_and_deviation_1(data):
    problem = make_problem("stationary", samples=60, test_samples=0)
    inputs = build_inputs(problem, data, 0, 0)
    mean, std = inputs.mean((0, 2, 3)), inputs.std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(std, torch.ones(2), rtol=1e-6, atol=0)


def test_stacked_tasks_equal_the_tasks_of_each_seed(data):
    seeds = [4, 0, 7]
    inputs, labels = tasks.build_task_of_seeds(PROBLEM, data, seeds, 2)
    for row, seed in enumerate(seeds):
        assert are_equal((inputs[row], labels[row]), tasks.build_task(PROBLEM, data, seed, 2))


@given(
    samples=st.integers(2, 40),
    batch=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=SEEDS,
    index=INDICES,
)
def test_epoch_visits_samples_once_and_drops_the_last_partial_batch(
    samples, batch, epochs, seed, index
):
    batch = min(batch, samples)
    problem = Problem("tiny", "shuffle_labels", samples, batch, epochs, tasks=1)
    order = tasks.draw_batches(problem, seed, index)
    assert order.shape == (epochs * (samples // batch), batch)
    assert problem.steps == epochs * (samples // batch)
    for epoch in order.reshape(epochs, -1):
        assert len(set(epoch)) == len(epoch) == samples // batch * batch
        assert set(epoch) <= set(range(samples))


@given(steps=st.integers(1, 30), seed=SEEDS)
def test_batches_of_a_budget_in_steps_start_a_budget_in_epochs(steps, seed):
    in_steps = tasks.draw_batches(replace(PROBLEM, epochs=None, steps_per_task=steps), seed, 3)
    in_epochs = tasks.draw_batches(replace(PROBLEM, epochs=20), seed, 3)
    assert in_steps.shape == (steps, 7)
    np.testing.assert_array_equal(in_steps, in_epochs[:steps])


@given(seed=SEEDS, index=INDICES)
def test_batches_are_reproducible_and_new_in_every_epoch_and_task(seed, index):
    order = tasks.draw_batches(PROBLEM, seed, index)
    np.testing.assert_array_equal(order, tasks.draw_batches(replace(PROBLEM, tasks=1), seed, index))
    next_order = tasks.draw_batches(PROBLEM, seed, index + 1)
    epochs = [*order.reshape(3, -1), *next_order.reshape(3, -1)]
    assert len({tuple(epoch) for epoch in epochs}) == 6


IMPOSSIBLE_PROBLEMS = {
    "too many training images": (
        make_problem("stationary", samples=61, test_samples=0),
        r"problem\.samples takes 61 images of tiny, .*60",
    ),
    "too many test images": (
        make_problem("stationary", samples=55),
        r"problem\.samples \+ problem\.test_samples takes 64 images of tiny",
    ),
    "too many images of a class": (
        make_problem("class_pairs", samples=58, test_samples=0),
        r"takes 29 images of class \d of tiny, which has only \d+: low",
    ),
    "too many classes": (
        make_problem("class_incremental", tasks=3),
        r"problem\.tasks is 3, each with 2 new classes, but tiny has only 4\. Lower",
    ),
}


@pytest.mark.parametrize(
    ("problem", "message"), IMPOSSIBLE_PROBLEMS.values(), ids=IMPOSSIBLE_PROBLEMS
)
def test_problem_that_needs_more_than_the_dataset_has_is_refused(data, problem, message):
    with pytest.raises(StudyError, match=message):
        tasks.build_task(problem, data, 0, 0)


def test_pairs_of_a_dataset_with_one_class_are_refused(data):
    loaded = dataset.Images(data.image.values, np.zeros(60, int), ["a"], 9)
    one_class = dataset.describe("one_class", loaded, {})
    message = r"class_pairs needs two classes, and tiny has 1\. Choose another problem\.shift"
    with pytest.raises(StudyError, match=message):
        tasks.build_task(make_problem("class_pairs"), one_class, 0, 0)


SEPARABLE = Problem("drawn", "stationary", samples=20, batch=2, epochs=1, tasks=1, separable=True)


def draw_images(seed, n, pixels):
    """Draw uint8 images, shape ``(n, pixels)``."""
    return np.random.default_rng(seed).integers(0, 256, (n, pixels), np.uint8)


def describe_images(images):
    """Return a dataset of images of shape ``(n, pixels)``."""
    labels = np.arange(len(images)) % 2
    return dataset.describe("drawn", dataset.Images(images[:, None, None], labels, ["a", "b"]), {})


@given(seed=SEEDS, n=st.integers(2, 20))
def test_linear_map_fits_any_targets_of_separable_images(seed, n):
    draw = np.random.default_rng(seed)
    data = describe_images(draw.integers(0, 256, (20, 19), np.uint8))
    problem = replace(SEPARABLE, samples=n)
    condition = tasks.check_separable(problem, data, seed)
    inputs = build_inputs(problem, data, seed, 0)
    X = torch.cat([inputs.flatten(1), torch.ones(n, 1)], dim=1).double()
    targets = torch.from_numpy(draw.normal(size=(n, 3)))
    torch.testing.assert_close(X @ (torch.linalg.pinv(X) @ targets), targets)
    assert condition == pytest.approx(float(torch.linalg.cond(X)), rel=1e-6)


def test_more_images_than_inputs_and_bias_are_refused_with_their_rank():
    data = describe_images(draw_images(1, 30, 19))
    message = (
        r"the 21 images of drawn that seed 3 draws are not linearly separable under any labels "
        r"\(\[X, 1\] has rank 20\): lower"
    )
    with pytest.raises(StudyError, match=message):
        tasks.check_separable(replace(SEPARABLE, samples=21), data, 3)


def test_images_with_equal_pixels_are_refused_with_their_rank():
    images = draw_images(1, 30, 19)
    images[:, 0] = images[:, 1]
    with pytest.raises(StudyError, match=r"has rank 19\)"):
        tasks.check_separable(SEPARABLE, describe_images(images), 3)


def test_images_that_float32_cannot_separate_are_refused_with_their_condition_number():
    data = describe_images(draw_images(1, 20, 19))
    data["channel_std"][:] = 1e-7  # makes the pixels much larger than the column of ones
    with pytest.raises(StudyError, match=r"\[X, 1\] has a condition number of \de\+\d+\)"):
        tasks.check_separable(SEPARABLE, data, 0)
