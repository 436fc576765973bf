"""MNIST's 60,000 training images (LeCun, Cortes & Burges 1998), from the original idx files, read by torchvision."""

import gzip
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST
from torchvision.datasets.utils import download_url

from plasticity.data import dataset
from plasticity.data.dataset import Images, Source
from plasticity.errors import StudyError


class Dataset(Source):
    """Training images and labels of the original idx files, `MNIST/raw/*.gz` below the data root."""

    origin = MNIST  # whose name is that of the folder

    def load(self, root: Path) -> Images:
        raw = root / self.origin.__name__ / "raw"
        files = [(name, md5) for name, md5 in self.origin.resources if name.startswith("train-")]
        dataset.check_data_root(root, *(str((raw / name).relative_to(root)) for name, _ in files))
        if missing := [(name, md5) for name, md5 in files if not (raw / name).exists()]:
            self._download(missing, raw)
        for name, md5 in files:
            dataset.check_md5(raw / name, md5)
        # torchvision reads unpacked files only, and the data root may be read-only
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = Path(scratch) / self.origin.__name__ / "raw"
            unpacked.mkdir(parents=True)
            for name, _ in files:
                with (
                    gzip.open(raw / name) as packed,
                    (unpacked / name.removesuffix(".gz")).open("wb") as plain,
                ):
                    shutil.copyfileobj(packed, plain)
            for (
                name,
                _,
            ) in (
                self.origin.resources
            ):  # it looks for the test files even where it does not read them
                (unpacked / name.removesuffix(".gz")).touch()
            read = self.origin(scratch, train=True)
        return Images(
            read.data.numpy()[:, None], read.targets.numpy().astype(np.int64), read.classes
        )

    def _download(self, missing: list[tuple[str, str]], raw: Path) -> None:
        """Fetch the original files, each checked by torchvision against its md5."""
        names = " and ".join(name for name, _ in missing)
        socket.setdefaulttimeout(dataset.TIMEOUT)
        for name, md5 in missing:
            for mirror in self.origin.mirrors:
                try:
                    download_url(mirror + name, str(raw), name, md5)
                    break
                except (
                    OSError,
                    RuntimeError,
                ) as error:  # no network, no permission, a wrong checksum
                    (raw / name).unlink(missing_ok=True)
                    reason = error
            else:
                raise StudyError(
                    f"{self.origin.__name__} could not be downloaded ({reason}): put the original {names} into {raw}"
                )
