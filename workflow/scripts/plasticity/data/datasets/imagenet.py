"""Training images of ImageNet (Russakovsky et al. 2015) or Tiny-ImageNet (Le & Yang 2015)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.imagenet import ARCHIVE_META

from plasticity.data.datasets import folder
from plasticity.data.image_folders import ImageFolders
from plasticity.errors import StudyError

ARCHIVE, ARCHIVE_MD5 = ARCHIVE_META["train"]
CLASS_FOLDER = re.compile(r"n\d{8}")  # a WordNet id such as n01440764
PARENTS = ("train", "tiny-imagenet-200/train", "")  # folders that can hold the class folders


@dataclass(frozen=True, kw_only=True)
class Dataset(folder.Dataset):
    """Images of the class folders of an original tree or archive, with the options of `folder`.

    Attributes:
        path: path below the data root of an archive, or of a folder that holds `train/`,
            `tiny-imagenet-200/` or the original archive.
    """

    path: str = "imagenet"
    side: int
    classes: Sequence[str] | int | None = None
    per_class: int | None = None
    unreadable: str = "refuse"
    md5: str | None = None

    def locate(self, root: Path) -> Path:
        """Return the path of the folder or archive.

        Raises:
            StudyError: if it does not exist.
        """
        path = root / self.path
        if not path.exists():
            raise StudyError(
                f"{path} does not exist, and ImageNet cannot be downloaded without an account. Put "
                f"{ARCHIVE} of https://image-net.org or the folder tiny-imagenet-200 into that "
                f"folder, or let the dataset's option path name an archive below {root}."
            )
        original = path / ARCHIVE
        return original if original.exists() else path

    def expected_md5(self, path: Path) -> str | None:
        """Return the option md5, else the md5 of the original archive if `path` has its name."""
        return self.md5 or (ARCHIVE_MD5 if path.name == ARCHIVE else None)

    def find_class_folders(self, folders: ImageFolders) -> tuple[str, list[str]]:
        """Return the folder that holds the class folders, and their names.

        Folders with names other than WordNet ids are ignored.

        Raises:
            StudyError: if there are no class folders.
        """
        for candidate in PARENTS:
            parent = "/".join(part for part in (folders.top, candidate) if part)
            names = folders.list_folders(parent)
            classes = [name for name in names if CLASS_FOLDER.fullmatch(name)]
            if classes:
                return parent, classes
        raise StudyError(
            f"{folders.path} holds no class folders such as train/n01440764. Put {ARCHIVE} of "
            "https://image-net.org or the folder tiny-imagenet-200 there."
        )
