"""The data root: the folder that holds the original files of datasets."""

from collections.abc import Sequence
from pathlib import Path

from plasticity.errors import StudyError


def check_data_root(root: Path, needed: Sequence[str]) -> None:
    """Check that the data root is a folder.

    Args:
        root: the data root.
        needed: what is read below the data root, for the message.

    Raises:
        StudyError: if there is no such folder.
    """
    if not root.is_dir():
        raise StudyError(
            f"data_root is {str(root)!r}, which is not a folder. Create it, or set data_root in "
            "the config or the environment variable PLASTICITY_DATA to the folder that holds "
            f"{' and '.join(needed)}."
        )
