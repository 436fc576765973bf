"""List and read the images of class folders, in a tree on disk or in a tar archive of such a tree.

An archive is never unpacked to disk. Its images have the same bytes and the same order as those of
the unpacked tree. Hidden files and folders are left out. Each tree or archive counts them, and the
images of other formats, so that a message can report what is not used.
"""

import lzma
import os
import posixpath
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from PIL import Image
from torchvision.datasets.folder import is_image_file

from plasticity.errors import StudyError

# what reading a damaged archive can raise
DAMAGE_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
MACOS_FOLDER = "__MACOSX"  # in archives that macOS packs
HIDDEN = "hidden"


class Entry(NamedTuple):
    """An image in a tree or archive.

    Attributes:
        name: path below the tree or inside the archive.
        offsets: where its header begins in the archive. For an image in an inner archive: where the
            header of the inner archive begins, then where the image's header begins in the inner
            archive. Empty in a tree.
    """

    name: str
    offsets: tuple[int, ...] = ()


class ImageFolders(Protocol):
    """Folders of images in a tree or archive.

    Attributes:
        path: path of the tree or archive.
        top: folder in which class folders are searched first; empty for the root.
        left_out: number of entries that are not used, by file extension, or under `HIDDEN`. It is
            complete after `list_images`.
    """

    path: Path
    top: str
    left_out: Counter[str]

    def list_folders(self, parent: str) -> list[str]:
        """List the names of the folders in a folder, sorted. A missing folder has none."""

    def list_images(self, parent: str, folders: Sequence[str]) -> dict[str, list[Entry]]:
        """List the images of some folders, each with its subfolders.

        Args:
            parent: the folder that holds these folders.
            folders: their names.

        Returns:
            Images by name of the folder, in the order of `folders`. The images of a folder are
            sorted by path.
        """

    def open_images(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """Yield the index of each entry and a path or file that Pillow can open, in any order."""


class Tree:
    """Class folders on disk. Links are followed, as torchvision does.

    Raises:
        StudyError: from `list_images`, if a link leads to a folder that contains it, or if an image
            is no regular file.
    """

    top = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()

    def list_folders(self, parent: str) -> list[str]:
        """List the names of the folders in a folder, sorted. A missing folder has none."""
        try:
            entries = list(os.scandir(self.path / parent))
        except (FileNotFoundError, NotADirectoryError):
            return []
        folders = [entry.name for entry in entries if entry.is_dir()]
        return sorted(name for name in folders if not is_hidden(name))

    def list_images(self, parent: str, folders: Sequence[str]) -> dict[str, list[Entry]]:
        """List the images of some folders of `parent`, sorted by path in each folder."""
        self.left_out.clear()
        siblings = (self.path / parent).iterdir()
        self.left_out[HIDDEN] += sum(is_hidden(path.name) for path in siblings)
        groups: dict[str, list[Entry]] = {}
        for name in folders:
            paths = list(self._walk(self.path / parent / name, ancestors=frozenset()))
            entries = [Entry(os.path.relpath(path, self.path)) for path in paths]
            groups[name] = sorted(entries, key=_path_order)
        return groups

    def _walk(self, folder: Path, ancestors: frozenset[str]) -> Iterator[Path]:
        """Yield the images in a folder and its subfolders.

        Args:
            folder: path of the folder.
            ancestors: real paths of the folders around it, in which a link must not end.
        """
        real_path = os.path.realpath(folder)
        if real_path in ancestors:
            raise StudyError(
                f"{folder} is a link to a folder that contains it, so its images never end. "
                "Remove the link."
            )
        for entry in list(os.scandir(folder)):
            path = folder / entry.name
            if is_hidden(entry.name):
                self.left_out[HIDDEN] += 1
            elif entry.is_dir():
                yield from self._walk(path, ancestors | {real_path})
            elif not is_image_file(entry.name):
                _count_other_format(self.left_out, entry.name)
            elif entry.is_file() or not path.exists():  # a broken link is an unreadable image
                yield path
            else:
                raise StudyError(f"{path} is no regular file, so it is no image. Remove it.")

    def open_images(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """Yield the index and the path of each image."""
        for index, entry in enumerate(entries):
            yield index, self.path / entry.name


class Archive:
    """Class folders in a tar archive of any compression.

    A tar archive in the archive counts as a folder of its name without ``.tar``. A single folder
    that holds all other folders becomes `top`.

    Raises:
        StudyError: from any method, if the file is no archive, is damaged, or holds links.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()
        self._offsets: dict[str, int] = {}  # of images and inner archives, by their path
        self._subfolders: dict[str, set[str]] = defaultdict(set)  # their names, by parent folder
        with _open_archive(path) as tar:
            for header in _read_headers(tar):
                self._index(header)
        names = list(self._subfolders[""])
        has_single_parent = len(names) == 1 and names[0] in self._subfolders
        self.top = names[0] if has_single_parent else ""

    def list_folders(self, parent: str) -> list[str]:
        """List the names of the folders in a folder, sorted. A missing folder has none."""
        return sorted(self._subfolders.get(parent, ()))

    def list_images(self, parent: str, folders: Sequence[str]) -> dict[str, list[Entry]]:
        """List the images of some folders of `parent`, sorted by path in each folder."""
        groups: dict[str, list[Entry]] = {name: [] for name in folders}
        inner_archives: dict[int, str] = {}  # names of folders, by the offset of the archive
        prefix = f"{parent}/" if parent else ""
        for name, offset in self._offsets.items():
            if not name.startswith(prefix):
                continue
            first, _, rest = name.removeprefix(prefix).partition("/")
            if rest:
                if first in groups and is_image_file(name):
                    groups[first].append(Entry(name, (offset,)))
            elif first.removesuffix(".tar") in groups:
                inner_archives[offset] = first.removesuffix(".tar")
        if inner_archives:
            for folder, entry in self._list_inner_images(prefix, inner_archives):
                groups[folder].append(entry)
        for entries in groups.values():
            entries.sort(key=_path_order)
        return groups

    def open_images(self, entries: Sequence[Entry]) -> Iterator[tuple[int, Path | BytesIO]]:
        """Yield the index and the content of each image, in the order of the archive."""
        indices = {entry.offsets: index for index, entry in enumerate(entries)}
        inner_archives = {offsets[0] for offsets in indices if len(offsets) == 2}
        with _open_archive(self.path) as tar:
            for file in _walk(tar, inner_archives):
                if file.offsets not in indices:
                    continue
                index = indices.pop(file.offsets)
                yield index, BytesIO(_open_file(file.archive, file.header).read())
                if not indices:
                    return

    def _index(self, header: tarfile.TarInfo) -> None:
        """Record an image or inner archive, and the folders that it is in."""
        name = _unpacked_path(header)
        if any(map(is_hidden, name.split("/"))):
            self.left_out[HIDDEN] += 1
            return
        if header.issym() or header.islnk():
            raise StudyError(
                f"{self.path} holds links ({name}). "
                "Pack it again with tar --dereference --hard-dereference."
            )
        is_archive = header.isreg() and header.name.endswith(".tar")
        is_image = header.isreg() and is_image_file(name)
        if is_archive or is_image:
            self._offsets[name] = header.offset
        elif header.isreg():
            _count_other_format(self.left_out, name)
        if is_archive:
            folder = name.removesuffix(".tar")
        elif header.isdir():
            folder = name
        else:
            folder = posixpath.dirname(name)
        while folder:
            parent, folder_name = posixpath.split(folder)
            self._subfolders[parent].add(folder_name)
            folder = parent

    def _list_inner_images(
        self, prefix: str, archives: dict[int, str]
    ) -> Iterator[tuple[str, Entry]]:
        """Yield the images of inner archives, each with the name of its folder.

        Args:
            prefix: path of the folder that holds the inner archives, with a slash at its end.
            archives: names of folders, by the offset of the inner archive.
        """
        with _open_archive(self.path) as tar:
            for file in _walk(tar, archives):
                is_inside = len(file.offsets) == 2
                if is_inside and file.header.isreg() and is_image_file(file.header.name):
                    folder = archives[file.offsets[0]]
                    name = f"{prefix}{folder}.tar/{_unpacked_path(file.header)}"
                    yield folder, Entry(name, file.offsets)


class _ArchivedFile(NamedTuple):
    """A file in an archive or inner archive, with offsets as in `Entry`."""

    offsets: tuple[int, ...]
    archive: tarfile.TarFile
    header: tarfile.TarInfo


def is_hidden(name: str) -> bool:
    """Check whether a file or folder is hidden, as those of Jupyter and macOS are."""
    return name.startswith(".") or name == MACOS_FOLDER


def _count_other_format(left_out: Counter[str], name: str) -> None:
    """Count a file that is no image of the accepted formats, if Pillow knows its format."""
    extension = Path(name).suffix.lower()
    if extension in Image.registered_extensions():
        left_out[extension] += 1


def _path_order(entry: Entry) -> tuple[str, str]:
    """Return the sort key that gives torchvision's order: by folder, then by file name."""
    folder, file = posixpath.split(entry.name)
    return folder, file


@contextmanager
def _open_archive(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive of any compression.

    Raises:
        StudyError: if the file is no archive, or if reading it inside the context shows damage.
    """
    try:
        if not tarfile.is_tarfile(path):
            raise StudyError(
                f"{path} is no tar archive, or is truncated or altered at its start. "
                "Download the original file and replace it, "
                "or unpack it and let the dataset's option path name the folder."
            )
        with tarfile.open(path) as tar:
            yield tar
    except DAMAGE_ERRORS as error:
        raise StudyError(
            f"{path} is truncated or altered ({error}). Download the original file and replace it."
        ) from error


def _walk(tar: tarfile.TarFile, inner_archives: Collection[int]) -> Iterator[_ArchivedFile]:
    """Yield all files of an archive, and the files of some inner archives.

    Args:
        tar: the archive.
        inner_archives: offsets of the inner archives to open.
    """
    for header in _read_headers(tar):
        yield _ArchivedFile((header.offset,), tar, header)
        if header.offset in inner_archives:
            with tarfile.open(fileobj=_open_file(tar, header), mode="r:") as inner:
                for inner_header in _read_headers(inner):
                    offsets = (header.offset, inner_header.offset)
                    yield _ArchivedFile(offsets, inner, inner_header)


def _read_headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an archive and check its end.

    Raises:
        tarfile.ReadError: if the archive has no end mark. Python's tarfile accepts such an archive.
    """
    while (header := tar.next()) is not None:
        yield header
        # tarfile stores all headers, which takes gigabytes for a million files
        tar.members.clear()  # type: ignore[attr-defined] # an undocumented attribute
    file = tar.fileobj
    assert file is not None  # the archive is open
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end mark is missing")
    while file.read(2**20):  # a compressed file has its checksum at its end
        pass


def _open_file(tar: tarfile.TarFile, header: tarfile.TarInfo) -> IO[bytes]:
    """Open a regular file of an archive."""
    content = tar.extractfile(header)
    assert content is not None  # extractfile returns None only for other kinds of entries
    return content


def _unpacked_path(header: tarfile.TarInfo) -> str:
    """Return a file's path without dots and without a leading slash; empty for the root."""
    return posixpath.normpath(f"/{header.name}").lstrip("/")
