"""Images in one folder per class, as a tree or in a tar archive of one: the general way in.

Every image becomes RGB, its shorter side is resized, and its centre is cut out. A tree is listed by torchvision; an archive is
never unpacked to disk, and gives the very bytes that its unpacked tree gives.
"""

import difflib
import lzma
import os
import posixpath
import tarfile
import zlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, is_image_file, make_dataset
from torchvision.transforms.functional import center_crop, resize

from plasticity import datasets, logs
from plasticity.datasets import Images, Source
from plasticity.errors import StudyError

BATCH = 32  # images that a thread decodes at a time
NAMED = 5  # of many, so many are named in a sentence
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)  # what reading an archive that is torn raises


class Entry(NamedTuple):
    """An image that was found.

    Attributes:
        name: its path below where it was looked for.
        offset: where it begins in its archive; behind that of the archive inside, where there is one. Empty in a tree.
    """

    name: str
    offset: tuple[int, ...] = ()


class Found(Protocol):
    """Folders and images below a path.

    Attributes:
        path: of the tree or archive.
        top: the folder where the others begin.
    """

    path: Path
    top: str

    def folders(self, at: str) -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""

    def images(self, at: str, classes: Sequence[str]) -> dict[str, list[Entry]]:
        """All images of some folders in a folder, in the order in which they are asked for; those of each sorted by path."""

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """What Pillow can open of each image, with its index, in the order in which they are met."""


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
        datasets.refuse_missing_root(root, self.path)
        path = self.find(root)
        if md5 := self.checksum(path):
            if path.is_dir():
                raise StudyError(f"the dataset's option md5 is that of an archive, and {path} is a folder: leave md5 out")
            datasets.refuse_altered(path, md5)
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
        self._report([f"{entry.name} ({flaw})" for entry, flaw in zip(entries, flaws, strict=True) if flaw], len(entries), path)
        readable = np.array([not flaw for flaw in flaws])
        for new, old in enumerate(np.flatnonzero(readable)):  # in place: the array may be as large as the memory
            if new != old:
                images[new] = images[old]
        images, kept = images[: readable.sum()], np.array(labels, np.int64)[readable]
        if (left := np.bincount(kept, minlength=len(classes)) == 0).any():
            name = classes[int(left.argmax())]
            raise StudyError(f"no image of the class {name!r} of {path} can be read: replace them, or leave that class out of classes")
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
            raise StudyError(f"{found.path} holds no class folders: let the dataset's option path name a folder with one folder per class")
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
                raise StudyError(f"the dataset's option classes is {self.classes}, but {path} holds {len(offered)} classes: lower it")
            return offered[: self.classes]
        if unknown := [name for name in self.classes if name not in set(offered)]:
            close = difflib.get_close_matches(unknown[0], offered, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it holds {len(offered)} classes, from {offered[0]!r} to {offered[-1]!r}"
            raise StudyError(f"the dataset's option classes names {unknown[0]!r}, which {path} does not hold: {hint}")
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

    def _decoded(self, found: Found, entries: Sequence[Entry]) -> tuple[np.ndarray, Sequence[str | None]]:
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
        files, cores, waiting = found.read(entries), len(os.sched_getaffinity(0)), deque[Future[None]]()
        with ThreadPoolExecutor(cores) as pool:
            for _ in logs.progress("images")(range(0, len(entries), BATCH)):
                waiting.append(pool.submit(put, list(islice(files, BATCH))))
                if len(waiting) > 2 * cores:  # no more content in memory than keeps all cores at work
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
            logs.log.warning("left out of %s, as it cannot be read: %s", path.name, one)


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


class Tree:
    """Class folders on disk; links are followed, as torchvision does."""

    top = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self, at: str) -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""
        try:
            names: list[str] = find_classes(self.path / at)[0]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return names

    def images(self, at: str, classes: Sequence[str]) -> dict[str, list[Entry]]:
        """All images of some folders in a folder; those of each sorted by path."""
        groups: dict[str, list[Entry]] = {name: [] for name in classes}
        labels = {name: label for label, name in enumerate(classes)}
        for path, label in make_dataset(self.path / at, labels, IMG_EXTENSIONS, allow_empty=True):
            groups[classes[label]].append(Entry(os.path.relpath(path, self.path)))
        return groups

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """The path of each image, with its index."""
        return ((index, self.path / entry.name) for index, entry in enumerate(entries))


class Archive:
    """Class folders in a tar archive; an archive in it counts as a folder, and one folder may be around them all.

    Raises:
        StudyError: at any time, where it is no archive, torn, or holds links.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, int] = {}  # where images and inner archives begin
        self.below: dict[str, set[str]] = defaultdict(set)  # names of folders by the folder that they are in
        with _opened(path) as tar:
            for member in _members(tar):
                self._add(member)
        tops = list(self.below[""])
        self.top = tops[0] if len(tops) == 1 and tops[0] in self.below else ""

    def _add(self, member: tarfile.TarInfo) -> None:
        """Remember an image, an inner archive, and the folders that they are in."""
        name, inner = _name(member), member.isreg() and member.name.endswith(".tar")
        if member.issym() or member.islnk():
            raise StudyError(f"{self.path} holds links ({name}): pack it anew with tar --dereference --hard-dereference")
        if inner or (member.isreg() and is_image_file(name)):
            self.files[name] = member.offset
        folder = name.removesuffix(".tar") if inner or member.isdir() else posixpath.dirname(name)
        while folder:
            self.below[posixpath.dirname(folder)].add(posixpath.basename(folder))
            folder = posixpath.dirname(folder)

    def folders(self, at: str) -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""
        return sorted(self.below.get(at, ()))

    def images(self, at: str, classes: Sequence[str]) -> dict[str, list[Entry]]:
        """All images of some folders in a folder; those of each sorted by path."""
        groups: dict[str, list[Entry]] = {name: [] for name in classes}
        archives: dict[int, str] = {}
        prefix = f"{at}/" if at else ""
        for name, offset in self.files.items():
            if not name.startswith(prefix):
                continue
            first, _, rest = name.removeprefix(prefix).partition("/")
            if rest and first in groups and is_image_file(name):
                groups[first].append(Entry(name, (offset,)))
            elif not rest and (stem := first.removesuffix(".tar")) in groups:
                archives[offset] = stem
        if archives:
            with _opened(self.path) as tar:
                for offsets, _, member in _walk(tar, archives):
                    if len(offsets) == 2 and member.isreg() and is_image_file(member.name):
                        stem = archives[offsets[0]]
                        groups[stem].append(Entry(f"{prefix}{stem}.tar/{_name(member)}", offsets))
        return {name: sorted(group, key=lambda entry: posixpath.split(entry.name)) for name, group in groups.items()}

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """The content of each image, with its index, in the order of the archive."""
        wanted = {entry.offset: index for index, entry in enumerate(entries)}
        with _opened(self.path) as tar:
            for offsets, archive, member in _walk(tar, {offset[0] for offset in wanted if len(offset) == 2}):
                if offsets in wanted:
                    yield wanted.pop(offsets), BytesIO(_content(archive, member).read())
                    if not wanted:
                        return


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """An archive of any compression.

    Raises:
        StudyError: no archive; or damage, whenever it is met.
    """
    try:
        if not tarfile.is_tarfile(path):
            raise StudyError(
                f"{path} is no tar archive, or is truncated or altered at its start: replace it by the original file, "
                "or unpack it and let the dataset's option path name the folder"
            )
        with tarfile.open(path) as tar:
            yield tar
    except DAMAGE as error:
        raise StudyError(f"{path} is truncated or altered ({error}): replace it by the original file") from error


def _walk(tar: tarfile.TarFile, archives: Collection[int]) -> Iterator[tuple[tuple[int, ...], tarfile.TarFile, tarfile.TarInfo]]:
    """Members with their offsets and the archive that they are in; behind an inner archive that begins at one of `archives`, its own."""
    for member in _members(tar):
        yield (member.offset,), tar, member
        if member.offset in archives:
            with tarfile.open(fileobj=_content(tar, member), mode="r:") as inner:
                for one in _members(inner):
                    yield (member.offset, one.offset), inner, one


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members one by one, none of them kept: a million would take gigabytes.

    Raises:
        tarfile.ReadError: the archive has no end mark, which Python itself does not mind.
    """
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined] # not documented, but asked for by many
    file = tar.fileobj
    assert file is not None  # it is open
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no mark at its end")
    while file.read(2**20):  # to the end, where a compressed file has its checksum
        pass


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """What a regular member holds."""
    content = tar.extractfile(member)
    assert content is not None  # as it is a regular one
    return content


def _name(member: tarfile.TarInfo) -> str:
    """The path of a member as it would be unpacked: no dots, no slash in front; empty for the root."""
    return posixpath.normpath(f"/{member.name}")[1:]
