"""Random bits, the inputs of slowly-changing regression (Dohare et al. 2024); what is learned of them is the change's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plasticity import rng
from plasticity.data.dataset import Images, Source


@dataclass(frozen=True)
class Dataset(Source):
    """Rows of bits, each 0 or 1 by a fair coin; the data root is not looked at.

    Attributes:
        inputs: bits in a row.
        images: rows.
    """

    inputs: int = 20
    images: int = 10_000

    def load(self, root: Path) -> Images:
        bits = rng.generator(0, "bits dataset").integers(
            0, 2, (self.images, 1, 1, self.inputs), np.uint8
        )
        return Images(bits, np.zeros(self.images, np.int64), ["none"], maximum=1)
