"""Random bits, the inputs of slowly changing regression (Dohare et al. 2024, Nature 632:768).

The targets come from the shift `flip_bits`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plasticity import rng
from plasticity.data.dataset import Images, Source


@dataclass(frozen=True)
class Dataset(Source):
    """Images of one row whose pixels are 0 or 1 with equal probability. No file is read.

    Attributes:
        inputs: bits per image.
        images: number of images.
    """

    FILES = ()

    inputs: int = 20
    images: int = 10_000

    def load(self, root: Path) -> Images:
        shape = (self.images, 1, 1, self.inputs)
        bits = rng.generator(0, "bits dataset").integers(0, 2, shape, np.uint8)
        return Images(bits, np.zeros(self.images, np.int64), ["none"], maximum=1)
