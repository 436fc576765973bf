"""Training images of MNIST (LeCun, Cortes & Burges 1998): 60,000 handwritten digits."""

import gzip
import socket
import tempfile
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST
from torchvision.datasets.utils import download_url

from plasticity.atomic import explain_write_errors
from plasticity.data import dataset
from plasticity.data.data_root import check_data_root
from plasticity.data.dataset import Images, Source
from plasticity.errors import StudyError


class Dataset(Source):
    """Training images and labels of the original idx files, in `MNIST/raw/` below the data root."""

    IMAGES = 60_000
    FILES = ("MNIST/raw/train-images-idx3-ubyte.gz", "MNIST/raw/train-labels-idx1-ubyte.gz")
    torchvision_class = MNIST

    def load(self, root: Path) -> Images:
        folder = root / self.torchvision_class.__name__ / "raw"
        resources = self.torchvision_class.resources
        files = {name: md5 for name, md5 in resources if name.startswith("train-")}
        check_data_root(root, self.FILES)
        missing = {name: md5 for name, md5 in files.items() if not (folder / name).exists()}
        if missing:
            self._download(missing, folder)
        for name, md5 in files.items():
            dataset.check_md5(folder / name, md5)
        # torchvision reads unpacked files only, and the data root may be read-only
        with tempfile.TemporaryDirectory() as scratch:
            self._unpack(list(files), folder, Path(scratch))
            read = self.torchvision_class(scratch, train=True)
        images = read.data.numpy()[:, None]
        labels = read.targets.numpy().astype(np.int64)
        return Images(images, labels, read.classes)

    def _download(self, missing: dict[str, str], folder: Path) -> None:
        """Download original files from the first mirror that has them.

        Args:
            missing: md5 of each file, by name.
            folder: folder for the files.

        Raises:
            StudyError: if no mirror gives the original file.
        """
        socket.setdefaulttimeout(dataset.DOWNLOAD_TIMEOUT)
        for name, md5 in missing.items():
            error = self._try_mirrors(name, md5, folder)
            if error is not None:
                raise StudyError(
                    f"{self.torchvision_class.__name__} could not be downloaded ({error}). "
                    f"Put the original {' and '.join(missing)} into {folder}."
                ) from error

    def _try_mirrors(self, name: str, md5: str, folder: Path) -> Exception | None:
        """Download a file; return the last mirror's error, or None after a success."""
        last_error: Exception | None = None
        for mirror in self.torchvision_class.mirrors:
            try:
                download_url(mirror + name, str(folder), name, md5)
            except (OSError, RuntimeError) as error:  # no network, no permission, wrong checksum
                (folder / name).unlink(missing_ok=True)
                last_error = error
            else:
                return None
        return last_error

    def _unpack(self, names: list[str], folder: Path, scratch: Path) -> None:
        """Unpack files as torchvision expects them below the folder `scratch`."""
        unpacked = scratch / self.torchvision_class.__name__ / "raw"
        unpacked.mkdir(parents=True)
        for name in names:
            path = unpacked / name.removesuffix(".gz")
            with explain_write_errors(path), path.open("wb") as file:
                file.write(gzip.decompress((folder / name).read_bytes()))
        # torchvision refuses a folder without the test files, even if it does not read them
        for name, _ in self.torchvision_class.resources:
            (unpacked / name.removesuffix(".gz")).touch()
