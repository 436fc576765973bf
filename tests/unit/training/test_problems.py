"""A network trained from scratch reaches the expected error on every problem."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiers import slow_except

from plasticity.config import registry
from plasticity.config.models import Dataset, Network, Optimizer, Problem, Setting
from plasticity.data import dataset, tasks
from plasticity.errors import StudyError
from plasticity.training.trainer import Trainer, train

MLP = Network("mlp", "relu", options={"width": 64, "depth": 2})
LINEAR = Network("mlp", "identity", options={"width": 64, "depth": 1})
ADAM = Optimizer("adam", options={"lr": 0.003})
DIGITS = Problem(
    "digits", "stationary", samples=200, batch=20, epochs=60, tasks=2, test_samples=300
)
CHANCE = (0.8, 1.0)  # of ten classes


def prepared(name, **options):
    """A dataset as the first stage hands it on."""
    source = registry.build("datasets", name, options)
    return dataset.describe(name, source.load(Path(os.environ.get("PLASTICITY_DATA", ""))), {})


@pytest.fixture(scope="module")
def digits():
    return prepared("digits")


def learned(setting, data, seeds=(0, 1)):
    """Outcomes of a fresh network per task, shape ``(seed, task)``."""
    trainer = Trainer(setting, "fresh", [({}, seed) for seed in seeds], data)
    train(trainer)
    return {name: values.numpy() for name, values in trainer.recorder.outcomes.items()}


# final error, and error on test images: the least and the most that is right
PROBLEMS = {
    "stationary": ({}, (0, 0), (0.02, 0.15)),
    "shuffle_labels": ({}, (0, 0), CHANCE),
    "memorize": ({}, (0, 0), CHANCE),
    "redraw_labels": ({"options": {"fraction": 0.2}}, (0, 0), CHANCE),
    "remap_labels": ({}, (0, 0), (0.02, 0.15)),
    "permute_pixels": ({}, (0, 0), (0.02, 0.15)),
    "class_pairs": ({"test_samples": 100}, (0, 0), (0, 0.1)),
    "class_incremental": (
        {"samples": 100, "test_samples": 50, "options": {"new_classes": 2}},
        (0, 0),
        (0, 0.15),
    ),
}


@pytest.mark.parametrize("change", slow_except(["shuffle_labels", "class_pairs"], PROBLEMS))
def test_fresh_network_fits_every_task_and_generalises_if_labels_have_meaning(digits, change):
    changed, (least, most), (least_on_others, most_on_others) = PROBLEMS[change]
    found = learned(Setting(replace(DIGITS, shift=change, **changed), MLP, ADAM), digits)
    assert ((found["final_error"] >= least) & (found["final_error"] <= most)).all()
    assert (
        (found["test_error"] >= least_on_others) & (found["test_error"] <= most_on_others)
    ).all(), found["test_error"]


def test_network_generalises_if_few_labels_are_redrawn(digits):
    few = {"fraction": 0.1, "first_task": "original"}
    setting = Setting(replace(DIGITS, shift="redraw_labels", options=few), MLP, ADAM)
    error = learned(setting, digits)["test_error"]
    assert (error[:, 0] < 0.15).all()
    assert (error[:, 1] > error[:, 0]).all()
    assert (error[:, 1] < 0.45).all()


def test_slowly_changing_regression_is_partly_learned():
    problem = Problem(
        "bits", "flip_bits", samples=1000, batch=10, epochs=10, tasks=2, test_samples=500
    )
    data = prepared("bits", images=2000)
    variance = np.array(
        [
            [float(tasks.build_task(problem, data, seed, task)[1].var()) for task in (0, 1)]
            for seed in (0, 1)
        ]
    )
    wide = learned(Setting(problem, MLP, ADAM), data)
    assert (wide["test_error"] < 0.02 * variance).all(), "32 patterns are learned by heart"
    narrow = Network("mlp", "identity", options={"width": 5, "depth": 1})
    assert (learned(Setting(problem, narrow, ADAM), data)["test_error"] > 0.05 * variance).all(), (
        "a linear map cannot"
    )


@pytest.mark.slow
def test_linear_network_fits_any_labels_of_separable_images_only(digits):
    shuffled = replace(
        DIGITS, shift="shuffle_labels", test_samples=0, samples=40, batch=8, epochs=150
    )
    assert tasks.check_separable(shuffled, digits, 0) < 1e4
    assert (learned(Setting(shuffled, LINEAR, ADAM), digits)["final_error"] == 0).all()
    many = replace(shuffled, samples=200)
    with pytest.raises(StudyError, match="not linearly separable under any labels"):
        tasks.check_separable(many, digits, 0)
    assert (learned(Setting(many, LINEAR, ADAM), digits)["final_error"] > 0.2).all()


GIVEN = Path(os.environ.get("PLASTICITY_DATA", ""))
with_data = pytest.mark.skipif(
    "PLASTICITY_DATA" not in os.environ
    or not (GIVEN / "MNIST/raw").exists()
    or not (GIVEN / "cifar-10-batches-py").exists(),
    reason="PLASTICITY_DATA does not name a folder with MNIST and cifar-10-batches-py",
)


@pytest.fixture(scope="module")
def mnist():
    return prepared("mnist")


@pytest.mark.data
@with_data
@pytest.mark.parametrize("seed", [0, 1])
def test_mnist_subsets_are_separable_up_to_about_500_images(mnist, seed):
    problem = Problem(
        "mnist", "shuffle_labels", samples=300, batch=16, epochs=1, tasks=1, separable=True
    )
    assert tasks.check_separable(problem, mnist, seed) < 1e3
    assert tasks.check_separable(replace(problem, samples=500), mnist, seed) < 1e5
    with pytest.raises(
        StudyError,
        match=r"the 600 images of mnist that seed \d draws .* has rank 5\d\d\): "
        r"lower problem\.samples",
    ):
        tasks.check_separable(replace(problem, samples=600), mnist, seed)


@pytest.mark.data
@with_data
def test_linear_network_fits_shuffled_labels_of_separable_mnist(mnist):
    problem = Problem(
        "mnist", "shuffle_labels", samples=300, batch=16, epochs=100, tasks=2, separable=True
    )
    assert (learned(Setting(problem, LINEAR, ADAM), mnist)["final_error"] == 0).all()


@pytest.mark.data
@with_data
def test_shuffled_cifar10_is_linearly_separable_where_mnist_is_not():
    data = prepared("cifar10", **Dataset.of({"kind": "cifar10", "files": ["data_batch_1"]}).options)
    problem = Problem(
        "cifar10", "shuffle_labels", samples=1200, batch=16, epochs=1, tasks=1, separable=True
    )
    assert tasks.check_separable(problem, data, 0) < 1e4
