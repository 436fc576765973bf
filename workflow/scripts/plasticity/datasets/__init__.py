"""Datasets, one file each: a class `Dataset` whose fields are its options, and which reads the original files.

A file that is missing, torn or altered is a `StudyError`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from plasticity import contracts
from plasticity.contracts import Variable


class Images(NamedTuple):
    """What a dataset holds, in its original order and values.

    Attributes:
        images: uint8, shape ``(sample, channel, row, column)``.
        labels: int64, shape ``(sample,)``, from 0.
        classes: a name for each label.
        maximum: the largest value that a pixel can have.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    maximum: int = 255


class Source:
    """The base of all: what a file's class must do."""

    def load(self, root: Path) -> Images:
        """Images and labels.

        Args:
            root: the data root; files that are not there are downloaded into it where that can be done.

        Raises:
            StudyError: a file that is missing and cannot be got, or whose checksum is wrong.
        """
        raise NotImplementedError


TABLE = {
    "image": Variable(("sample", "channel", "row", "column"), "pixels", "uint8"),
    "label": Variable(("sample",), "class", "int64"),
    "class_name": Variable(("class",), "name of the class", "str"),
    "channel_mean": Variable(("channel",), "mean of the pixels of all images, as a share of the largest value"),
    "channel_std": Variable(("channel",), "standard deviation of the pixels of all images, as a share of the largest value"),
}


def describe(name: str, loaded: Images, stamp: dict[str, str]) -> xr.Dataset:
    """A dataset as the later stages read it; `stamp` as `provenance.stamp` gives it."""
    images, labels, classes, maximum = loaded
    mean, std = images.mean((0, 2, 3)) / maximum, images.std((0, 2, 3)) / maximum
    variables = {"image": images, "label": labels, "class_name": np.array(classes), "channel_mean": mean, "channel_std": std}
    data = contracts.dataset(TABLE, variables, {}, f"dataset {name}", stamp)
    data["image"].attrs["valid_max"] = maximum
    return data
