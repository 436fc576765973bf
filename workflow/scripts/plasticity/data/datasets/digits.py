"""Handwritten digits shipped inside scikit-learn: 1,797 images of 8 × 8 with values 0 to 16 (Alpaydin & Kaynak 1998)."""

from pathlib import Path

import numpy as np
import sklearn.datasets

from plasticity.data.dataset import Images, Source


class Dataset(Source):
    """All images; the data root is not looked at."""

    def load(self, root: Path) -> Images:
        digits = sklearn.datasets.load_digits()
        names = [str(name) for name in digits.target_names]
        return Images(
            digits.images.astype(np.uint8)[:, None],
            digits.target.astype(np.int64),
            names,
            maximum=16,
        )
