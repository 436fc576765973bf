"""Fixtures of all unit tests: a tiny prepared dataset, and a server of forked processes."""

import numpy as np
import pytest
from forking import Forks

from plasticity.data import dataset
from plasticity.models import ensemble

ensemble.make_deterministic()


@pytest.fixture(scope="session")
def data():
    """Sixty images of 2 channels and 2 × 3 pixels in four classes, as a prepared dataset."""
    draw = np.random.default_rng(0)
    images, labels = (
        draw.integers(0, 10, (60, 2, 2, 3), np.uint8),
        np.concatenate([np.arange(4), draw.integers(0, 4, 56)]),
    )
    return dataset.describe("tiny", dataset.Images(images, labels, list("abcd"), 9), {})


@pytest.fixture(scope="module")
def forks():
    """A server of forked processes for the tests of a module."""
    forks = Forks()
    with forks.process:
        yield forks
        forks.process.stdin.close()
