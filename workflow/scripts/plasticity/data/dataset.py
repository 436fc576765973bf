"""Datasets, one file each in `datasets/`.

Each file has a class `Dataset`. Its fields are the options of the dataset, and its `load` reads the
original files.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import xarray as xr

from plasticity.errors import StudyError
from plasticity.storage import netcdf
from plasticity.storage.netcdf import Variable

DOWNLOAD_TIMEOUT = 30  # seconds
PIXELS_PER_CHUNK = 2**20  # of one channel, counted at a time


class Images(NamedTuple):
    """Images and labels in their original order, with their original values.

    Attributes:
        images: uint8, shape ``(sample, channel, row, column)``.
        labels: integers from 0, shape ``(sample,)``.
        classes: one name per label.
        maximum: largest value that a pixel can have, 1 to 255.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    maximum: int = 255


class Source(ABC):
    """Base class of every `Dataset`.

    The constants tell the config check what it can know before anything runs. They must be
    literals in the class of the file.

    Attributes:
        IMAGES: number of images, if it is always the same.
        IMAGES_PER: for an option that is a list, number of images per item.
        FILES: original files below the data root, if they always have the same names.
    """

    IMAGES: ClassVar[int | None] = None
    IMAGES_PER: ClassVar[Mapping[str, int]] = {}
    FILES: ClassVar[Sequence[str] | None] = None

    @abstractmethod
    def load(self, root: Path) -> Images:
        """Load images and labels, and download missing files where this is possible.

        Args:
            root: the data root, a folder.

        Raises:
            StudyError: if a file is missing and cannot be downloaded, if a checksum is wrong, or if
                an option does not fit the files.
        """


TABLE = {
    "image": Variable(("sample", "channel", "row", "column"), "pixels", "uint8"),
    "label": Variable(("sample",), "class", "int64"),
    "class_name": Variable(("class",), "name of the class", "str"),
    "channel_mean": Variable(
        ("channel",), "mean of the pixels of all images, as a share of the largest value"
    ),
    "channel_std": Variable(
        ("channel",),
        "standard deviation of the pixels of all images, as a share of the largest value",
    ),
}


def describe(name: str, loaded: Images, stamp: dict[str, str]) -> xr.Dataset:
    """Check a loaded dataset and describe it with the variables of `TABLE`.

    Args:
        name: name of the dataset in the config.
        loaded: what the dataset's `load` returned.
        stamp: global attributes, as `provenance.stamp` returns them.

    Raises:
        StudyError: if the images, labels or classes are not as `Images` describes them.
    """
    _check_labels(name, loaded)
    _check_images(name, loaded)
    counts = _count_pixel_values(loaded.images)
    _check_maximum(name, counts, loaded.maximum)
    mean, std = _mean_and_std(counts)
    variables = {
        "image": loaded.images,
        "label": loaded.labels,
        "class_name": np.array(loaded.classes),
        "channel_mean": mean / loaded.maximum,
        "channel_std": std / loaded.maximum,
    }
    data = netcdf.dataset(TABLE, variables, {}, f"dataset {name}", stamp)
    data["image"].attrs["valid_max"] = loaded.maximum
    return data


def check_md5(path: Path, md5: str) -> None:
    """Check that a file is the original.

    Args:
        path: the file.
        md5: md5 of the original file, in hexadecimal digits.

    Raises:
        StudyError: if the file cannot be read or has another md5.
    """
    new_md5 = partial(hashlib.md5, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, new_md5).hexdigest()
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror}). Give yourself permission to read it, "
            "or replace it by the original file."
        ) from error
    if actual != md5:
        raise StudyError(
            f"{path} is truncated or altered: its md5 is {actual} and should be {md5}. "
            "Download the original file and replace it."
        )


def _check_labels(name: str, loaded: Images) -> None:
    """Check that there is one label per image and one name per label.

    Raises:
        StudyError: if labels have another type or shape, two classes share a name, or a label has
            no class.
    """
    labels, classes = loaded.labels, list(loaded.classes)
    if labels.dtype.kind not in "iu" or labels.shape != loaded.images.shape[:1]:
        raise StudyError(
            f"dataset {name} has labels of type {labels.dtype} and shape {labels.shape} for images "
            f"of shape {loaded.images.shape}. Its load must return one whole number per image."
        )
    duplicates = sorted(class_name for class_name in classes if classes.count(class_name) > 1)
    if duplicates:
        raise StudyError(
            f"dataset {name} has the class {duplicates[0]!r} twice. "
            "Its load must return a different name for each class."
        )
    outside = (labels < 0) | (labels >= len(classes))
    if outside.any():
        first = int(outside.argmax())
        raise StudyError(
            f"dataset {name} has the label {labels[first]} at image {first} (counted from 0), but "
            f"its {len(classes)} classes are numbered 0 to {len(classes) - 1}. "
            "Correct the label, or let its load return a name for that class."
        )


def _check_images(name: str, loaded: Images) -> None:
    """Check the type and shape of the images, and that the maximum fits into uint8.

    Raises:
        StudyError: if one of these is wrong.
    """
    images, maximum = loaded.images, loaded.maximum
    if images.dtype != np.uint8:
        has_nan = images.dtype.kind == "f" and np.isnan(images).any()
        remark = " (and some are NaN)" if has_nan else ""
        raise StudyError(
            f"dataset {name} has pixels of type {images.dtype}{remark}. Its load must scale "
            "them to 0 to maximum, replace NaN and infinity, round, and convert to uint8."
        )
    if images.ndim != 4 or not images.size:
        raise StudyError(
            f"dataset {name} has images of shape {images.shape}. "
            "Its load must return at least one, of shape (sample, channel, row, column)."
        )
    if not 1 <= maximum <= 255:
        raise StudyError(
            f"dataset {name} has the maximum {maximum}. "
            "Its load must return the largest value that a pixel can have, 1 to 255."
        )


def _check_maximum(name: str, counts: np.ndarray, maximum: int) -> None:
    """Check that no pixel is above the maximum.

    Args:
        name: name of the dataset.
        counts: shape ``(channel, 256)``, as `_count_pixel_values` returns them.
        maximum: largest value that a pixel can have.

    Raises:
        StudyError: if a pixel is above the maximum.
    """
    too_large = np.flatnonzero(counts[:, maximum + 1 :].any(axis=0))
    if too_large.size:
        raise StudyError(
            f"dataset {name} has the pixel {maximum + 1 + too_large[-1]}, above its maximum of "
            f"{maximum}. Its load must return the largest value that a pixel can have."
        )


def _count_pixel_values(images: np.ndarray) -> np.ndarray:
    """Count how often each value occurs in each channel, without a copy of all images.

    Args:
        images: uint8, shape ``(sample, channel, row, column)``.

    Returns:
        int64, shape ``(channel, 256)``.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), np.int64)
    images_per_chunk = max(1, PIXELS_PER_CHUNK // images[0, 0].size)
    for first in range(0, len(images), images_per_chunk):
        chunk = images[first : first + images_per_chunk]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    return counts


def _mean_and_std(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and standard deviation of the pixels of each channel, in float64.

    Args:
        counts: shape ``(channel, 256)``, as `_count_pixel_values` returns them.

    Returns:
        Mean and standard deviation, both of shape ``(channel,)``.
    """
    values = np.arange(256.0)
    pixels = counts.sum(axis=1)
    mean = counts @ values / pixels
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / pixels
    return mean, np.sqrt(variance)
