"""Datasets, one file each: `load(root)` gives images and labels in their original order and values.

A dataset returns ``(images, labels)``: uint8 of shape ``(sample, channel, row, column)`` and int64 of shape ``(sample,)``,
with `MAXIMUM` the largest value that a pixel can have. A file that is missing, torn or altered is a `StudyError`.
"""

import numpy as np
import xarray as xr

from plasticity import contracts
from plasticity.contracts import Variable

TABLE = {
    "image": Variable(("sample", "channel", "row", "column"), "pixels", "uint8"),
    "label": Variable(("sample",), "class", "int64"),
    "channel_mean": Variable(("channel",), "mean of the pixels of all images, as a share of the largest value"),
    "channel_std": Variable(("channel",), "standard deviation of the pixels of all images, as a share of the largest value"),
}


def describe(name: str, images: np.ndarray, labels: np.ndarray, maximum: int, stamp: dict[str, str]) -> xr.Dataset:
    """A dataset as the later stages read it.

    Args:
        name: of the dataset.
        images: uint8, shape ``(sample, channel, row, column)``.
        labels: shape ``(sample,)``.
        maximum: the largest value that a pixel can have.
        stamp: as `provenance.stamp` gives it.
    """
    mean, std = images.mean((0, 2, 3)) / maximum, images.std((0, 2, 3)) / maximum
    variables = {"image": images, "label": labels, "channel_mean": mean, "channel_std": std}
    data = contracts.dataset(TABLE, variables, {}, f"dataset {name}", stamp)
    data["image"].attrs["valid_max"] = maximum
    return data
