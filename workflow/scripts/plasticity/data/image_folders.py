"""Where the images of a folder of class folders lie: in a tree on disk, or in a tar archive of one.

A tree is listed by torchvision; an archive is never unpacked to disk, and gives the very bytes that its unpacked tree gives.
"""

import lzma
import os
import posixpath
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, is_image_file, make_dataset

from plasticity.errors import StudyError

DAMAGE = (
    tarfile.TarError,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
)  # what reading an archive that is torn raises


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
        self.below: dict[str, set[str]] = defaultdict(
            set
        )  # names of folders by the folder that they are in
        with _opened(path) as tar:
            for run in _runs(tar):
                self._add(run)
        tops = list(self.below[""])
        self.top = tops[0] if len(tops) == 1 and tops[0] in self.below else ""

    def _add(self, run: tarfile.TarInfo) -> None:
        """Remember an image, an inner archive, and the folders that they are in."""
        name, inner = _name(run), run.isreg() and run.name.endswith(".tar")
        if run.issym() or run.islnk():
            raise StudyError(
                f"{self.path} holds links ({name}): pack it anew with tar --dereference --hard-dereference"
            )
        if inner or (run.isreg() and is_image_file(name)):
            self.files[name] = run.offset
        folder = name.removesuffix(".tar") if inner or run.isdir() else posixpath.dirname(name)
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
                for offsets, _, run in _walk(tar, archives):
                    if len(offsets) == 2 and run.isreg() and is_image_file(run.name):
                        stem = archives[offsets[0]]
                        groups[stem].append(Entry(f"{prefix}{stem}.tar/{_name(run)}", offsets))
        return {
            name: sorted(group, key=lambda entry: posixpath.split(entry.name))
            for name, group in groups.items()
        }

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """The content of each image, with its index, in the order of the archive."""
        wanted = {entry.offset: index for index, entry in enumerate(entries)}
        with _opened(self.path) as tar:
            for offsets, archive, run in _walk(
                tar, {offset[0] for offset in wanted if len(offset) == 2}
            ):
                if offsets in wanted:
                    yield wanted.pop(offsets), BytesIO(_content(archive, run).read())
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
        raise StudyError(
            f"{path} is truncated or altered ({error}): replace it by the original file"
        ) from error


def _walk(
    tar: tarfile.TarFile, archives: Collection[int]
) -> Iterator[tuple[tuple[int, ...], tarfile.TarFile, tarfile.TarInfo]]:
    """Runs with their offsets and the archive that they are in; behind an inner archive that begins at one of `archives`, its own."""
    for run in _runs(tar):
        yield (run.offset,), tar, run
        if run.offset in archives:
            with tarfile.open(fileobj=_content(tar, run), mode="r:") as inner:
                for one in _runs(inner):
                    yield (run.offset, one.offset), inner, one


def _runs(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Runs one by one, none of them kept: a million would take gigabytes.

    Raises:
        tarfile.ReadError: the archive has no end mark, which Python itself does not mind.
    """
    while (run := tar.next()) is not None:
        yield run
        tar.runs.clear()  # type: ignore[attr-defined] # not documented, but asked for by many
    file = tar.fileobj
    assert file is not None  # it is open
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no mark at its end")
    while file.read(2**20):  # to the end, where a compressed file has its checksum
        pass


def _content(tar: tarfile.TarFile, run: tarfile.TarInfo) -> IO[bytes]:
    """What a regular run holds."""
    content = tar.extractfile(run)
    assert content is not None  # as it is a regular one
    return content


def _name(run: tarfile.TarInfo) -> str:
    """The path of a run as it would be unpacked: no dots, no slash in front; empty for the root."""
    return posixpath.normpath(f"/{run.name}")[1:]
