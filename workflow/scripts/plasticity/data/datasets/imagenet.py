"""ImageNet (Russakovsky et al. 2015) or Tiny-ImageNet (Le & Yang 2015), as a tree or as an archive; training images only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.imagenet import ARCHIVE_META

from plasticity.data.datasets import folder
from plasticity.data.image_folders import Found
from plasticity.errors import StudyError

ARCHIVE, ARCHIVE_MD5 = ARCHIVE_META["train"]
CLASS = re.compile(r"n\d{8}")  # WordNet's name of a meaning
PLACES = ("train", "tiny-imagenet-200/train", "")  # of the class folders


@dataclass(frozen=True, kw_only=True)
class Dataset(folder.Dataset):
    """Images of the class folders (`n01440764` …) of a tree or archive as it is handed out; options as in `folder`.

    Attributes:
        path: of the folder that holds `train/` or `tiny-imagenet-200/` or the original archive; or of an archive.
    """

    path: str = "imagenet"
    side: int
    classes: Sequence[str] | int | None = None
    per_class: int | None = None
    unreadable: str = "refuse"
    md5: str | None = None

    def find(self, root: Path) -> Path:
        """The folder or archive.

        Raises:
            StudyError: there is none.
        """
        path = root / self.path
        if not path.exists():
            raise StudyError(
                f"there is no {path}, and ImageNet cannot be downloaded without an account: put {ARCHIVE} of https://image-net.org into "
                f"that folder, or the folder tiny-imagenet-200, or let the dataset's option path name an archive of it below {root}"
            )
        return path / ARCHIVE if (path / ARCHIVE).exists() else path

    def checksum(self, path: Path) -> str | None:
        """The md5 that the archive must have: the one that was given, or that of the original."""
        return self.md5 or (ARCHIVE_MD5 if path.name == ARCHIVE else None)

    def offered(self, found: Found) -> tuple[str, list[str]]:
        """Where the class folders are, and their names; folders of other names are no classes.

        Raises:
            StudyError: there are none.
        """
        for place in PLACES:
            at = "/".join(part for part in (found.top, place) if part)
            if names := [name for name in found.folders(at) if CLASS.fullmatch(name)]:
                return at, names
        raise StudyError(
            f"{found.path} holds no class folders such as train/n01440764: put {ARCHIVE} of https://image-net.org or the folder "
            "tiny-imagenet-200 there"
        )
