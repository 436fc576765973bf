"""Write files atomically: readers see the old file or the complete new one, never a part.

The module is at the top level because both `storage` and `provenance` write files, and `provenance`
may not import `storage`. Standard library only, since the launcher imports it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plasticity.errors import StudyError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` if the body of the `with` succeeds.

    If the body raises, the temporary file is removed and the former file at `path` stays. Parent
    folders are created.

    Raises:
        StudyError: the folder cannot be created, or the file cannot be renamed.
    """
    part = path.with_name(path.name + ".part")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with explain_write_errors(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into a message for the user.

    Python reports a full disk as OSError, netCDF as RuntimeError.

    Raises:
        StudyError: the body raised one of them.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(
            f"{path} could not be written ({reason}): free space or give yourself write "
            f"permission, for example `chmod u+w {path.parent}`"
        ) from error
