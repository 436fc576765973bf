"""Handwritten digits shipped inside scikit-learn: 1,797 images of 8 × 8 with values 0 to 16 (Alpaydin & Kaynak 1998)."""

from pathlib import Path

import numpy as np
import sklearn.datasets

MAXIMUM = 16


def load(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels; `root` is not looked at."""
    digits = sklearn.datasets.load_digits()
    return digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
