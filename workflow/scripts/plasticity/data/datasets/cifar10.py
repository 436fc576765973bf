"""CIFAR-10 (Krizhevsky 2009): colour photographs in the original pickles of 10,000 images each."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_and_extract_archive

from plasticity.data import dataset
from plasticity.data.data_root import check_data_root
from plasticity.data.dataset import Images, Source
from plasticity.errors import StudyError

MD5_OF_FILE = dict([*CIFAR10.train_list, *CIFAR10.test_list])
SHAPE = (10_000, 3, 32, 32)  # of the images in one file


@dataclass(frozen=True)
class Dataset(Source):
    """The images of some files in `cifar-10-batches-py/` below the data root.

    Only these files and `batches.meta` have to exist.

    Attributes:
        files: names of the files, in the order in which they are read.
    """

    IMAGES = 50_000
    FILES = ("cifar-10-batches-py/batches.meta",)
    IMAGES_PER = {"files": 10_000}

    files: Sequence[str] = tuple(name for name, _ in CIFAR10.train_list)

    def load(self, root: Path) -> Images:
        self._check_names()
        folder = root / CIFAR10.base_folder
        expected = {name: MD5_OF_FILE[name] for name in self.files}
        expected[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
        check_data_root(root, self.FILES)
        missing = [name for name in expected if not (folder / name).exists()]
        if missing:
            _download(missing, root)
        # check all files before the first is unpickled, because a pickle can run code
        for name, md5 in expected.items():
            dataset.check_md5(folder / name, md5)

        images = np.empty((len(self.files), *SHAPE), np.uint8)
        labels = np.empty((len(self.files), SHAPE[0]), np.int64)
        for index, name in enumerate(self.files):
            file = _read_file(name, root)
            images[index] = file.data.transpose(0, 3, 1, 2)
            labels[index] = file.targets
        return Images(images.reshape(-1, *SHAPE[1:]), labels.ravel(), file.classes)

    def _check_names(self) -> None:
        """Check that all names are those of original files.

        Raises:
            StudyError: if a name is unknown.
        """
        for name in self.files:
            if name not in MD5_OF_FILE:
                raise StudyError(
                    f"the dataset's option files names {name!r}, which is no file of CIFAR-10. "
                    f"Choose among {', '.join(MD5_OF_FILE)}."
                )


def _read_file(name: str, root: Path) -> CIFAR10:
    """Read one file with torchvision, which otherwise requires all files and reads them at once."""
    attributes = {"train_list": [(name, MD5_OF_FILE[name])], "test_list": []}
    one_file: type[CIFAR10] = type("OneFile", (CIFAR10,), attributes)
    return one_file(root)


def _download(missing: Sequence[str], root: Path) -> None:
    """Download and unpack the original archive. Torchvision checks its md5.

    Args:
        missing: names of the missing files, for the message.
        root: the data root.

    Raises:
        StudyError: if there is no network or no permission, or if the archive is truncated.
    """
    archive = root / CIFAR10.filename
    archive_existed = archive.exists()
    if archive_existed:
        dataset.check_md5(archive, CIFAR10.tgz_md5)
    socket.setdefaulttimeout(dataset.DOWNLOAD_TIMEOUT)
    try:
        if not os.access(root, os.W_OK):
            raise PermissionError(f"{root} is read-only")
        download_and_extract_archive(
            CIFAR10.url, str(root), filename=archive.name, md5=CIFAR10.tgz_md5
        )
    except (OSError, RuntimeError) as error:
        if not archive_existed:
            archive.unlink(missing_ok=True)
        raise StudyError(
            f"CIFAR-10 could not be downloaded ({error}). Put the original "
            f"{' and '.join(missing)} into {root / CIFAR10.base_folder}, or put {archive.name} of "
            f"https://www.cs.toronto.edu/~kriz/cifar.html into {root}."
        ) from error
