"""CIFAR-10 (Krizhevsky 2009): colour photographs, 10,000 in a file, from the original pickles, read by torchvision."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_and_extract_archive

from plasticity.data import dataset
from plasticity.data.dataset import Images, Source
from plasticity.errors import StudyError

KNOWN = dict([*CIFAR10.train_list, *CIFAR10.test_list])  # md5 by file
SHAPE = (10_000, 3, 32, 32)  # of each file


@dataclass(frozen=True)
class Dataset(Source):
    """The images of some files of `cifar-10-batches-py` below the data root; no other file needs to be there, but `batches.meta`.

    Attributes:
        files: which, in which order.
    """

    files: Sequence[str] = tuple(name for name, _ in CIFAR10.train_list)

    def load(self, root: Path) -> Images:
        if unknown := [name for name in self.files if name not in KNOWN]:
            raise StudyError(
                f"the dataset's option files names {unknown[0]!r}, which is no file of CIFAR-10: known are {', '.join(KNOWN)}"
            )
        folder = root / CIFAR10.base_folder
        checks = {name: KNOWN[name] for name in self.files} | {
            CIFAR10.meta["filename"]: CIFAR10.meta["md5"]
        }
        dataset.check_data_root(root, f"{CIFAR10.base_folder}/{CIFAR10.meta['filename']}")
        if missing := [name for name in checks if not (folder / name).exists()]:
            _download(missing, root)
        for name, md5 in checks.items():  # all, before anything is unpickled: a pickle is a program
            dataset.check_md5(folder / name, md5)
        images, labels = (
            np.empty((len(self.files), *SHAPE), np.uint8),
            np.empty((len(self.files), SHAPE[0]), np.int64),
        )
        for place, name in enumerate(self.files):
            # torchvision reads all files of its lists at once, and wants them all to be there
            read = type(
                "Batch", (CIFAR10,), {"train_list": [(name, KNOWN[name])], "test_list": []}
            )(root)
            images[place], labels[place] = read.data.transpose(0, 3, 1, 2), read.targets
        return Images(images.reshape(-1, *SHAPE[1:]), labels.ravel(), read.classes)


def _download(missing: Sequence[str], root: Path) -> None:
    """Fetch and unpack the original archive, checked by torchvision against its md5.

    Raises:
        StudyError: no network, no permission, a wrong checksum.
    """
    archive = root / CIFAR10.filename
    mine = not archive.exists()
    socket.setdefaulttimeout(dataset.TIMEOUT)
    try:
        if not os.access(root, os.W_OK):
            raise PermissionError(f"{root} is read-only")
        download_and_extract_archive(
            CIFAR10.url, str(root), filename=archive.name, md5=CIFAR10.tgz_md5
        )
    except (OSError, RuntimeError) as error:
        if mine:
            archive.unlink(missing_ok=True)
        raise StudyError(
            f"CIFAR-10 could not be downloaded ({error}): put the original {' and '.join(missing)} into {root / CIFAR10.base_folder}, "
            f"or {archive.name} of https://www.cs.toronto.edu/~kriz/cifar.html into {root}"
        ) from error
