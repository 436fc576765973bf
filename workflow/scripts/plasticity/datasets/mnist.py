"""MNIST's 60,000 training images (LeCun, Cortes & Burges 1998), from the original idx files, read by torchvision."""

import gzip
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity, download_url

from plasticity.datasets import Images, Source
from plasticity.errors import StudyError

TIMEOUT = 30  # seconds without an answer that mean there is no network


class Dataset(Source):
    """Training images and labels of the original idx files, `MNIST/raw/*.gz` below the data root."""

    def load(self, root: Path) -> Images:
        raw = root / "MNIST" / "raw"
        files = [(name, md5) for name, md5 in MNIST.resources if name.startswith("train-")]
        if not root.is_dir():
            raise StudyError(
                f"data_root is {str(root)!r}, and there is no such folder: create it, or let data_root in the config or the environment "
                f"variable PLASTICITY_DATA name the folder that holds MNIST/raw/{files[0][0]} and MNIST/raw/{files[1][0]}"
            )
        if missing := [(name, md5) for name, md5 in files if not (raw / name).exists()]:
            _download(missing, raw)
        for name, md5 in files:
            if not check_integrity(str(raw / name), md5):
                raise StudyError(f"{raw / name} is truncated or altered (its md5 is not {md5}): replace it by the original file")
        # torchvision reads unpacked files only, and the data root may be read-only
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = Path(scratch) / "MNIST" / "raw"
            unpacked.mkdir(parents=True)
            for name, _ in files:
                with gzip.open(raw / name) as packed, (unpacked / name.removesuffix(".gz")).open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
            for name, _ in MNIST.resources:  # it looks for the test files even where it does not read them
                (unpacked / name.removesuffix(".gz")).touch()
            mnist = MNIST(scratch, train=True)
        return Images(mnist.data.numpy()[:, None], mnist.targets.numpy().astype(np.int64), mnist.classes)


def _download(missing: list[tuple[str, str]], raw: Path) -> None:
    """Fetch the original files, each checked by torchvision against its md5."""
    names = " and ".join(name for name, _ in missing)
    socket.setdefaulttimeout(TIMEOUT)
    for name, md5 in missing:
        for mirror in MNIST.mirrors:
            try:
                download_url(mirror + name, str(raw), name, md5)
                break
            except (OSError, RuntimeError) as error:  # no network, no permission, a wrong checksum
                (raw / name).unlink(missing_ok=True)
                reason = error
        else:
            raise StudyError(f"MNIST could not be downloaded ({reason}): put the original {names} into {raw}")
