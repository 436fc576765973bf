"""Images in one folder per class, as a tree or in a tar archive of one: the general way in.

Every image becomes RGB, its shorter side is resized, and its centre is cut out.
"""

import difflib
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import center_crop, resize

from plasticity import log
from plasticity.data import dataset
from plasticity.data.dataset import Images, Source
from plasticity.data.image_folders import Archive, Entry, Found, Tree
from plasticity.errors import StudyError

BATCH = 32  # images that a thread decodes at a time
NAMED = 5  # of many, so many are named in a sentence


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """Images of a folder of class folders, or of a tar archive of such a folder; a class folder may have folders of its own.

    Attributes:
        path: of the folder or archive, below the data root.
        side: pixels in a row and in a column.
        classes: names of those to take, in the order of their labels; or how many, the first by name. None: all.
        per_class: how many images of each class, the first by path. None: all.
        unreadable: ``refuse`` images that cannot be read, or ``skip`` them.
        md5: of the archive. None: unchecked.
    """

    path: str
    side: int
    classes: Sequence[str] | int | None = None
    per_class: int | None = None
    unreadable: str = "refuse"
    md5: str | None = None

    def load(self, root: Path) -> Images:
        dataset.check_data_root(root, self.path)
        path = self.find(root)
        if md5 := self.checksum(path):
            if path.is_dir():
                raise StudyError(
                    f"the dataset's option md5 is that of an archive, and {path} is a folder: leave md5 out"
                )
            dataset.check_md5(path, md5)
        found: Found = Tree(path) if path.is_dir() else Archive(path)
        at, offered = self.offered(found)
        classes = self._chosen(offered, path)
        entries: list[Entry] = []
        labels: list[int] = []
        for label, (name, held) in enumerate(found.images(at, classes).items()):
            self._refuse_too_few(name, len(held), path)
            entries += held[: self.per_class]
            labels += [label] * (len(entries) - len(labels))
        images, flaws = self._decoded(found, entries)
        self._report(
            [f"{entry.name} ({flaw})" for entry, flaw in zip(entries, flaws, strict=True) if flaw],
            len(entries),
            path,
        )
        readable = np.array([not flaw for flaw in flaws])
        for new, old in enumerate(
            np.flatnonzero(readable)
        ):  # in place: the array may be as large as the memory
            if new != old:
                images[new] = images[old]
        images, kept = images[: readable.sum()], np.array(labels, np.int64)[readable]
        if (left := np.bincount(kept, minlength=len(classes)) == 0).any():
            name = classes[int(left.argmax())]
            raise StudyError(
                f"no image of the class {name!r} of {path} can be read: replace them, or leave that class out of classes"
            )
        return Images(images, kept, classes)

    def find(self, root: Path) -> Path:
        """The folder or archive.

        Raises:
            StudyError: there is none.
        """
        if not (root / self.path).exists():
            raise StudyError(
                f"there is no {root / self.path}: let the dataset's option path name a folder of class folders, or a tar archive of such "
                "a folder, below data_root"
            )
        return root / self.path

    def checksum(self, path: Path) -> str | None:
        """The md5 that the archive must have, if one is known."""
        return self.md5

    def offered(self, found: Found) -> tuple[str, list[str]]:
        """Where the class folders are, and their names.

        Raises:
            StudyError: there are none.
        """
        if not (names := found.folders(found.top)):
            raise StudyError(
                f"{found.path} holds no class folders: let the dataset's option path name a folder with one folder per class"
            )
        return found.top, names

    def _chosen(self, offered: Sequence[str], path: Path) -> Sequence[str]:
        """Names of the classes, in the order of their labels.

        Raises:
            StudyError: a class that is not there.
        """
        if self.classes is None:
            return offered
        if isinstance(self.classes, int):
            if self.classes > len(offered):
                raise StudyError(
                    f"the dataset's option classes is {self.classes}, but {path} holds {len(offered)} classes: lower it"
                )
            return offered[: self.classes]
        if unknown := [name for name in self.classes if name not in set(offered)]:
            close = difflib.get_close_matches(unknown[0], offered, n=1)
            hint = (
                f"did you mean {close[0]!r}?"
                if close
                else f"it holds {len(offered)} classes, from {offered[0]!r} to {offered[-1]!r}"
            )
            raise StudyError(
                f"the dataset's option classes names {unknown[0]!r}, which {path} does not hold: {hint}"
            )
        return list(self.classes)

    def _refuse_too_few(self, name: str, count: int, path: Path) -> None:
        """Refuse a class without images, or with fewer than are asked for.

        Raises:
            StudyError: naming the class.
        """
        if not count:
            raise StudyError(
                f"the class {name!r} of {path} holds no images ({' '.join(IMG_EXTENSIONS)}): remove it, or choose others by classes"
            )
        if self.per_class and count < self.per_class:
            raise StudyError(
                f"the dataset's option per_class is {self.per_class}, but the class {name!r} of {path} holds {count} images: "
                "lower per_class, or choose other classes"
            )

    def _decoded(
        self, found: Found, entries: Sequence[Entry]
    ) -> tuple[np.ndarray, Sequence[str | None]]:
        """Read and decode images on all cores, each into its place: which thread is first does not matter.

        Returns:
            The images, shape ``(entry, 3, side, side)``, and what is wrong with each: None where it can be read.

        Raises:
            StudyError: not enough memory.
        """
        shape = (len(entries), 3, self.side, self.side)
        try:
            images = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise StudyError(
                f"{shape[0]} images of {self.side} × {self.side} pixels do not fit into memory: lower side, classes or per_class"
            ) from error
        flaws: list[str | None] = ["gone"] * len(entries)

        def put(batch: Sequence[tuple[int, Path | BytesIO]]) -> None:
            for index, file in batch:
                try:
                    images[index], flaws[index] = fitted(file, self.side), None
                except MemoryError:
                    raise
                except UnidentifiedImageError:
                    flaws[index] = "no image"
                except Exception as error:  # noqa: BLE001 - Pillow raises whatever a torn file leads it to
                    flaws[index] = str(error) or type(error).__name__

        Image.init()  # in each thread alone, it may miss formats that another thread is just about to register
        files, cores, waiting = (
            found.read(entries),
            len(os.sched_getaffinity(0)),
            deque[Future[None]](),
        )
        with ThreadPoolExecutor(cores) as pool:
            for _ in log.progress("images")(range(0, len(entries), BATCH)):
                waiting.append(pool.submit(put, list(islice(files, BATCH))))
                if (
                    len(waiting) > 2 * cores
                ):  # no more content in memory than keeps all cores at work
                    waiting.popleft().result()
            for one in waiting:
                one.result()
        return images, flaws

    def _report(self, unreadable: Sequence[str], count: int, path: Path) -> None:
        """Say which of so many images cannot be read.

        Raises:
            StudyError: they are not to be skipped.
        """
        if unreadable and self.unreadable == "refuse":
            more = " …" if len(unreadable) > NAMED else ""
            raise StudyError(
                f"{len(unreadable)} of {count} images of {path} cannot be read: {', '.join(unreadable[:NAMED])}{more}: "
                "replace them, or set the dataset's option unreadable to skip"
            )
        for one in unreadable:
            log.log.warning("left out of %s, as it cannot be read: %s", path.name, one)


def fitted(file: Path | BytesIO, side: int) -> np.ndarray:
    """An image as RGB, its shorter side resized, its centre cut out.

    Returns:
        uint8, shape ``(3, side, side)``.

    Raises:
        Exception: whatever Pillow finds wrong.
    """
    with Image.open(file) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would cut their values off, not scale them
            raise ValueError("more than 8 bits per pixel")
        square = center_crop(resize(image.convert("RGB"), side), side)
    return np.asarray(square).transpose(2, 0, 1)
