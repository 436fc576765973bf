"""Datasets, one file each: a class `Dataset` whose fields are its options, and which reads the original files.

A file that is missing, torn or altered is a `StudyError`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from plasticity.errors import StudyError
from plasticity.storage import netcdf
from plasticity.storage.netcdf import Variable

TIMEOUT = 30  # seconds without an answer that mean there is no network
CHUNK = 2**20  # pixels that are counted at a time


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


class Source(ABC):
    """The base of all: what a file's class must do."""

    @abstractmethod
    def load(self, root: Path) -> Images:
        """Images and labels.

        Args:
            root: the data root; files that are not there are downloaded into it where that can be done.

        Raises:
            StudyError: a file that is missing and cannot be got, or whose checksum is wrong; an option that does not fit.
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
    """A dataset as the later stages read it; `stamp` as `provenance.stamp` gives it.

    Raises:
        StudyError: images or labels that are not what `Images` says.
    """
    images, labels, classes, maximum = loaded
    _refuse_unfit_labels(name, loaded)
    counts = _counts(name, loaded)
    values, pixels = np.arange(256.0), counts.sum(1)
    mean = counts @ values / pixels
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / pixels)
    variables = {
        "image": images,
        "label": labels,
        "class_name": np.array(classes),
        "channel_mean": mean / maximum,
        "channel_std": std / maximum,
    }
    data = netcdf.dataset(TABLE, variables, {}, f"dataset {name}", stamp)
    data["image"].attrs["valid_max"] = maximum
    return data


def check_data_root(root: Path, *needed: str) -> None:
    """Refuse a data root that is not there.

    Args:
        root: the data root.
        needed: what it should hold, below it.

    Raises:
        StudyError: no such folder.
    """
    if not root.is_dir():
        raise StudyError(
            f"data_root is {str(root)!r}, and there is no such folder: create it, or let data_root in the config or the environment "
            f"variable PLASTICITY_DATA name the folder that holds {' and '.join(needed)}"
        )


def check_md5(path: Path, md5: str) -> None:
    """Refuse a file that is not the original.

    Raises:
        StudyError: another checksum, or a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror}): mend its permissions or replace it by the original file"
        ) from error
    if found != md5:
        raise StudyError(
            f"{path} is truncated or altered (its md5 is {found}, not {md5}): replace it by the original file"
        )


def _refuse_unfit_labels(name: str, loaded: Images) -> None:
    """Refuse labels that do not go with the images or the classes.

    Raises:
        StudyError: of another type or length, or a label without a class.
    """
    labels, classes = loaded.labels, list(loaded.classes)
    if labels.dtype.kind not in "iu" or labels.shape != loaded.images.shape[:1]:
        raise StudyError(
            f"dataset {name} has labels of type {labels.dtype} and shape {labels.shape} for images of shape {loaded.images.shape}: "
            "its load must return one whole number per image"
        )
    if twice := sorted({one for one in classes if classes.count(one) > 1}):
        raise StudyError(
            f"dataset {name} names the class {twice[0]!r} twice: its load must return a name of its own for each class"
        )
    if (outside := (labels < 0) | (labels >= len(classes))).any():
        place = int(outside.argmax())
        raise StudyError(
            f"dataset {name} has the label {labels[place]} at image {place} (counted from 0), but its {len(classes)} classes are "
            f"numbered 0 to {len(classes) - 1}: mend the label, or let its load return a name for that class"
        )


def _counts(name: str, loaded: Images) -> np.ndarray:
    """How often each value occurs, a slice of the images at a time: no copy of all of them, and nothing is rounded.

    Returns:
        int64, shape ``(channel, 256)``.

    Raises:
        StudyError: no images, of another type or shape, or with a value above the maximum.
    """
    images, maximum = loaded.images, loaded.maximum
    if images.dtype != np.uint8:
        nan = " (and some are NaN)" if images.dtype.kind == "f" and np.isnan(images).any() else ""
        raise StudyError(
            f"dataset {name} has pixels of type {images.dtype}{nan}: its load must scale them to 0 to maximum, "
            "replace what is no number, round, and convert to uint8"
        )
    if images.ndim != 4 or not images.size:
        raise StudyError(
            f"dataset {name} has images of shape {images.shape}: its load must return at least one, of shape (sample, channel, row, column)"
        )
    if not 1 <= maximum <= 255:
        raise StudyError(
            f"dataset {name} has the maximum {maximum}: its load must return the largest value of a pixel, 1 to 255"
        )
    counts, size = np.zeros((images.shape[1], 256), np.int64), max(1, CHUNK // images[0, 0].size)
    for first in range(0, len(images), size):
        for channel, counted in enumerate(counts):
            counted += np.bincount(images[first : first + size, channel].ravel(), minlength=256)
    if (above := np.flatnonzero(counts[:, maximum + 1 :].any(0))).size:
        raise StudyError(
            f"dataset {name} has the pixel {maximum + 1 + above[-1]}, above its maximum of {maximum}: "
            "its load must return the largest value that a pixel can have"
        )
    return counts
