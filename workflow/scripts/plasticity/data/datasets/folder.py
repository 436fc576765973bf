"""Images in one folder per class, in a tree or in a tar archive of such a tree.

Every image is converted to RGB. Its shorter side is resized, and its centre is cropped.
"""

import difflib
import os
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import center_crop, resize

from plasticity import log
from plasticity.data import dataset
from plasticity.data.data_root import check_data_root
from plasticity.data.dataset import Images, Source
from plasticity.data.image_folders import Archive, Entry, ImageFolders, Tree
from plasticity.errors import StudyError

BATCH = 32  # images that a thread decodes at a time
MAX_NAMED = 5  # unreadable images that a message names


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """Images of class folders, which may have subfolders.

    Attributes:
        path: path below the data root of the folder or tar archive that holds the class folders.
        side: rows and columns of each image after cropping, in pixels.
        classes: names of the classes to use, in the order of their labels, or a number of classes,
            the first ones by name. None uses all classes.
        per_class: images to use of each class, the first ones by path. None uses all images.
        unreadable: ``refuse`` or ``skip`` images that cannot be read.
        md5: md5 of the archive. None skips the check.
    """

    path: str
    side: int
    classes: Sequence[str] | int | None = None
    per_class: int | None = None
    unreadable: str = "refuse"
    md5: str | None = None

    def load(self, root: Path) -> Images:
        check_data_root(root, [self.path])
        path = self.locate(root)
        self._check_md5(path)
        folders: ImageFolders = Tree(path) if path.is_dir() else Archive(path)
        parent, available = self.find_class_folders(folders)
        classes = self._select_classes(available, path)
        entries, labels = self._select_images(folders.list_images(parent, classes), path)
        _report_left_out(folders)

        images, flaws = self._decode(folders, entries)
        self._report_unreadable(entries, flaws, path)
        readable = np.array([flaw is None for flaw in flaws])
        images = _move_to_front(images, readable)
        labels = labels[readable]
        _check_all_classes_readable(labels, classes, path)
        return Images(images, labels, classes)

    def locate(self, root: Path) -> Path:
        """Return the path of the folder or archive.

        Raises:
            StudyError: if it does not exist.
        """
        path = root / self.path
        if not path.exists():
            raise StudyError(
                f"{path} does not exist. Let the dataset's option path name a folder of class "
                "folders, or a tar archive of such a folder, below data_root."
            )
        return path

    def expected_md5(self, path: Path) -> str | None:
        """Return the md5 that the archive must have, or None if it is unknown."""
        return self.md5

    def find_class_folders(self, folders: ImageFolders) -> tuple[str, list[str]]:
        """Return the folder that holds the class folders, and their names.

        Raises:
            StudyError: if there are no class folders.
        """
        names = folders.list_folders(folders.top)
        if not names:
            raise StudyError(
                f"{folders.path} holds no class folders. "
                "Let the dataset's option path name a folder with one folder per class."
            )
        return folders.top, names

    def _check_md5(self, path: Path) -> None:
        """Check the md5 of the archive if it is known.

        Raises:
            StudyError: if the md5 is wrong, or if `path` is a folder.
        """
        md5 = self.expected_md5(path)
        if not md5:
            return
        if path.is_dir():
            raise StudyError(
                f"the dataset's option md5 is for archives, and {path} is a folder. Remove md5."
            )
        dataset.check_md5(path, md5)

    def _select_classes(self, available: Sequence[str], path: Path) -> Sequence[str]:
        """Return the names of the classes to use, in the order of their labels.

        Raises:
            StudyError: if a class is not available.
        """
        if self.classes is None:
            return available
        if isinstance(self.classes, int):
            if self.classes > len(available):
                raise StudyError(
                    f"the dataset's option classes is {self.classes}, but {path} holds "
                    f"{len(available)} classes. Lower classes."
                )
            return available[: self.classes]
        # Two texts that look the same may differ in how they write accents.
        by_normal_form = {unicodedata.normalize("NFC", name): name for name in available}
        selected = []
        for name in self.classes:
            match = by_normal_form.get(unicodedata.normalize("NFC", name))
            if match is None:
                raise StudyError(
                    f"the dataset's option classes names {name!r}, which {path} does not hold. "
                    f"{_suggest_class(name, available)}"
                )
            selected.append(match)
        return selected

    def _select_images(
        self, images: Mapping[str, Sequence[Entry]], path: Path
    ) -> tuple[list[Entry], np.ndarray]:
        """Return the images to use, class by class, and their labels.

        Args:
            images: all images of each class.
            path: path of the tree or archive, for messages.

        Raises:
            StudyError: if a class has no images, or fewer than `per_class`.
        """
        entries: list[Entry] = []
        labels: list[int] = []
        for label, (name, images_of_class) in enumerate(images.items()):
            self._check_count(name, len(images_of_class), path)
            selected = images_of_class[: self.per_class]
            entries += selected
            labels += [label] * len(selected)
        return entries, np.array(labels, np.int64)

    def _check_count(self, name: str, count: int, path: Path) -> None:
        """Check that a class has images, and at least `per_class` of them.

        Raises:
            StudyError: if it has too few.
        """
        if not count:
            raise StudyError(
                f"the class {name!r} of {path} holds no images ({' '.join(IMG_EXTENSIONS)}). "
                "Remove it, or choose others with classes."
            )
        if self.per_class and count < self.per_class:
            raise StudyError(
                f"the dataset's option per_class is {self.per_class}, but the class {name!r} of "
                f"{path} holds {count} images: lower per_class, or choose other classes"
            )

    def _decode(
        self, folders: ImageFolders, entries: Sequence[Entry]
    ) -> tuple[np.ndarray, list[str | None]]:
        """Read and decode images on all cores. The result does not depend on the order of threads.

        Returns:
            Images, uint8, shape ``(entry, 3, side, side)``, and one flaw per entry: what is wrong
            with the image, or None if it can be read.

        Raises:
            StudyError: if the images do not fit into memory.
        """
        images = self._allocate(len(entries))
        flaws: list[str | None] = ["missing"] * len(entries)

        def decode(batch: Sequence[tuple[int, Path | BytesIO]]) -> None:
            for index, file in batch:
                try:
                    images[index] = resize_and_crop(file, self.side)
                    flaws[index] = None
                except MemoryError:
                    raise
                except UnidentifiedImageError:
                    flaws[index] = "no image"
                except Exception as error:  # noqa: BLE001 - Pillow raises many kinds of errors
                    flaws[index] = str(error) or type(error).__name__

        Image.init()  # threads that call it at the same time may miss formats
        cores = len(os.sched_getaffinity(0))
        files = folders.open_images(entries)
        pending = deque[Future[None]]()
        with ThreadPoolExecutor(cores) as pool:
            for _ in log.progress("images", "batch")(range(0, len(entries), BATCH)):
                pending.append(pool.submit(decode, list(islice(files, BATCH))))
                if len(pending) > 2 * cores:  # bounds the encoded images that are in memory
                    pending.popleft().result()
            for future in pending:
                future.result()
        return images, flaws

    def _allocate(self, count: int) -> np.ndarray:
        """Return an uninitialised array for the images.

        Raises:
            StudyError: if it does not fit into memory.
        """
        try:
            return np.empty((count, 3, self.side, self.side), np.uint8)
        except MemoryError as error:
            raise StudyError(
                f"{count} images of {self.side} × {self.side} pixels do not fit into memory: "
                "lower side, classes or per_class"
            ) from error

    def _report_unreadable(
        self, entries: Sequence[Entry], flaws: Sequence[str | None], path: Path
    ) -> None:
        """Log the images that cannot be read and are skipped.

        Raises:
            StudyError: if there are some and `unreadable` is ``refuse``.
        """
        pairs = zip(entries, flaws, strict=True)
        unreadable = [f"{entry.name} ({flaw})" for entry, flaw in pairs if flaw is not None]
        if unreadable and self.unreadable == "refuse":
            more = " …" if len(unreadable) > MAX_NAMED else ""
            raise StudyError(
                f"{len(unreadable)} of {len(entries)} images of {path} cannot be read: "
                f"{', '.join(unreadable[:MAX_NAMED])}{more}. "
                "Replace them, or set the dataset's option unreadable to skip."
            )
        for name_and_flaw in unreadable:
            log.log.warning("skip an unreadable image of %s: %s", path.name, name_and_flaw)


def resize_and_crop(file: Path | BytesIO, side: int) -> np.ndarray:
    """Read an image as RGB, resize its shorter side and crop its centre.

    The image is turned as its EXIF orientation says, and transparent pixels are laid on black.

    Args:
        file: a path or file that Pillow can open.
        side: rows and columns of the result.

    Returns:
        uint8, shape ``(3, side, side)``.

    Raises:
        ValueError: if the image has more than 8 bits per pixel.
        Exception: any error of Pillow.
    """
    with Image.open(file) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip the values, not scale them
            raise ValueError("more than 8 bits per pixel")
        square = center_crop(resize(_to_rgb(ImageOps.exif_transpose(image)), side), side)
    return np.asarray(square).transpose(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, on black where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")


def _report_left_out(folders: ImageFolders) -> None:
    """Log how many files are not used, by kind."""
    counts = [f"{count} {kind}" for kind, count in sorted(folders.left_out.items()) if count]
    if counts:
        log.log.warning(
            "not used of %s: %s files; images need one of the extensions %s",
            folders.path,
            ", ".join(counts),
            " ".join(IMG_EXTENSIONS),
        )


def _suggest_class(name: str, available: Sequence[str]) -> str:
    """Return a sentence that helps to correct the name of a class."""
    similar = difflib.get_close_matches(name, available, n=1)
    if similar:
        return f"Did you mean {similar[0]!r}?"
    return f"It holds {len(available)} classes, from {available[0]!r} to {available[-1]!r}."


def _move_to_front(images: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """Move the readable images to the front and return a view of them.

    There is no copy, because the array may take most of the memory.

    Args:
        images: shape ``(entry, 3, side, side)``, changed in place.
        readable: bool, shape ``(entry,)``.
    """
    for new_index, old_index in enumerate(np.flatnonzero(readable)):
        if new_index != old_index:
            images[new_index] = images[old_index]
    return images[: readable.sum()]


def _check_all_classes_readable(labels: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Check that each class has an image that can be read.

    Args:
        labels: labels of the readable images, shape ``(n,)``.
        classes: names of all classes.
        path: path of the tree or archive, for the message.

    Raises:
        StudyError: if a class has none.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if (counts == 0).any():
        name = classes[int(counts.argmin())]
        raise StudyError(
            f"no image of the class {name!r} of {path} can be read. "
            "Replace its images, or leave the class out of classes."
        )
