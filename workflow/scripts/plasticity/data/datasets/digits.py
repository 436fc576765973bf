"""Handwritten digits that scikit-learn contains (Alpaydin & Kaynak 1998).

There are 1,797 images of 8 × 8 pixels with values 0 to 16.
"""

from pathlib import Path

import numpy as np
import sklearn.datasets

from plasticity.data.dataset import Images, Source


class Dataset(Source):
    """All images. No file below the data root is read."""

    IMAGES = 1797
    FILES = ()

    def load(self, root: Path) -> Images:
        digits = sklearn.datasets.load_digits()
        images = digits.images.astype(np.uint8)[:, None]
        labels = digits.target.astype(np.int64)
        classes = [str(name) for name in digits.target_names]
        return Images(images, labels, classes, maximum=16)
