"""Records: beside every result, of what and by what it was made, and its checksum. Standard library only.

`results/{study}/provenance/` has one JSON file for each result, on the result's own path. A result that is not what its record says was
edited, or copied by half, and is no input of anything. The record knows the commit, which a result may not: results of equal code are
equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plasticity.errors import StudyError
from plasticity.provenance import code_digest

FOLDER = "provenance"


@dataclass(frozen=True)
class Record:
    """Of one result.

    Attributes:
        sha256: its checksum.
        source: the entry that made it.
        settings: what that was told of the config.
        code: digests of its files and versions of its packages, as `provenance.code_digest` gives them.
        versions: of Python and of what every stage uses.
        inputs: checksums of what it was made of, by name.
        commit: that was checked out; empty where git was not at hand.
        changed: whether files differed from that commit.
    """

    sha256: str
    source: str
    settings: Any
    code: dict[str, str]
    versions: dict[str, str]
    inputs: dict[str, str]
    commit: str
    changed: bool


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name(path: Path) -> str:
    """How records call a file: its path in the study's folder, else in the repository; elsewhere, its bare name."""
    if parts := _below_results(path):
        return "/".join(parts[1:])
    return (
        str(path.resolve().relative_to(code_digest.ROOT))
        if path.resolve().is_relative_to(code_digest.ROOT)
        else path.name
    )


def place(path: Path) -> Path | None:
    """Where the record of a result lies; None of a file outside a study's results."""
    parts = _below_results(path)
    return (
        code_digest.ROOT.joinpath("results", parts[0], FOLDER, *parts[1:-1], f"{parts[-1]}.json")
        if len(parts) > 1
        else None
    )


def read(path: Path) -> Record | None:
    """The record of a result; None where there is none, or it cannot be read."""
    at = place(path)
    try:
        return Record(**json.loads(at.read_text(encoding="utf-8"))) if at else None
    except (OSError, ValueError, TypeError):
        return None


def write(outputs: Sequence[Path], stamp: Mapping[str, str], inputs: Mapping[str, str]) -> None:
    """Record results, each in the place of its former record.

    Args:
        outputs: that are there and whole.
        stamp: as `provenance.stamp` gives it.
        inputs: checksums by name.

    Raises:
        StudyError: no space, no permission.
    """
    commit, changed = code_digest.commit()
    settings, code, versions = (json.loads(stamp[key]) for key in ("settings", "code", "versions"))
    for path in outputs:
        if at := place(path):
            record = Record(
                digest(path),
                stamp["source"],
                settings,
                code,
                versions,
                dict(inputs),
                commit,
                changed,
            )
            part = at.with_name(at.name + ".part")
            try:
                at.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(
                    json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8"
                )
                part.replace(at)
            except OSError as error:
                raise StudyError(
                    f"{at} could not be written ({error.strerror}): free space or mend its permissions"
                ) from error
            finally:
                part.unlink(missing_ok=True)


def checked(path: Path) -> str:
    """The checksum of an input.

    Raises:
        StudyError: it is missing, cannot be read, or is a result that is not what its record says.
    """
    try:
        found = digest(path)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror}): delete it and start snakemake again, which makes it anew"
        ) from error
    record = read(path)
    if record and record.sha256 != found:
        raise StudyError(
            f"{path} is not what {record.source} made (its checksum is another): it was edited, or copied by half. Put the original back, "
            "or delete it and start snakemake again, which makes it anew"
        )
    return found


def _below_results(path: Path) -> tuple[str, ...]:
    """A path's parts below `results/`: the study first; none for a path elsewhere."""
    whole, home = Path.cwd() / path, code_digest.ROOT / "results"
    return whole.relative_to(home).parts if whole.is_relative_to(home) else ()
