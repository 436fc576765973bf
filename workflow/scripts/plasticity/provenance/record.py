"""Provenance records: how each result was computed, from which inputs, and its checksum.

`results/{study}/provenance/` has one JSON file for each result, under the path of the result. A
result whose checksum differs from its record was edited or copied incompletely, and no job accepts
it as input. The record names the git commit and the release. The result does not, because equal
code must give equal bytes. Standard library only.
"""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import plasticity
from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError
from plasticity.provenance import code_digest

FOLDER = "provenance"


@dataclass(frozen=True)
class Record:
    """Record of one result.

    Attributes:
        sha256: checksum of the result.
        source: the entry that wrote it.
        settings: the part of the config that the entry used.
        code: digests of its files and versions of its packages, from `code_digest.code_digest`.
        versions: of Python and of the packages that every stage uses.
        inputs: checksums of the input files by name.
        commit: that git had checked out; empty without a git repository.
        changed: whether files differed from that commit.
        release: version of the library; empty in records of before it had one.
    """

    sha256: str
    source: str
    settings: Any
    code: dict[str, str]
    versions: dict[str, str]
    inputs: dict[str, str]
    commit: str
    changed: bool
    release: str = ""


def digest(path: Path) -> str:
    """Compute the SHA-256 checksum of a file.

    Raises:
        OSError: it cannot be read, or it is a folder, a device or a pipe, which may never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable_name(path: Path) -> str:
    """Return the name of a file in records, which is the same on every machine.

    This is the path relative to the study's results, or else to the repository, or else the bare
    file name.
    """
    parts = _parts_below_results(path)
    if parts:
        return "/".join(parts[1:])
    absolute = path.resolve()
    if absolute.is_relative_to(code_digest.ROOT):
        return str(absolute.relative_to(code_digest.ROOT))
    return path.name


def record_path(path: Path) -> Path | None:
    """Return the path of a result's record, or None for a file outside the results of a study."""
    parts = _parts_below_results(path)
    if len(parts) < 2:
        return None
    study, *folders, file = parts
    return code_digest.ROOT.joinpath("results", study, FOLDER, *folders, f"{file}.json")


def read(path: Path) -> Record | None:
    """Read the record of a result, or return None if there is none or it is damaged."""
    location = record_path(path)
    if location is None:
        return None
    try:
        return Record(**json.loads(location.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write(outputs: Sequence[Path], stamp: Mapping[str, str], inputs: Mapping[str, str]) -> None:
    """Write the records of results; they replace former records.

    Args:
        outputs: paths of the finished results. Files outside the results of a study get no record.
        stamp: from `code_digest.stamp`.
        inputs: checksums by name.

    Raises:
        StudyError: the disk is full, or the folder is not writable.
    """
    commit, changed = code_digest.commit()
    for path in outputs:
        location = record_path(path)
        if location is None:
            continue
        record = Record(
            sha256=digest(path),
            source=stamp["source"],
            settings=json.loads(stamp["settings"]),
            code=json.loads(stamp["code"]),
            versions=json.loads(stamp["versions"]),
            inputs=dict(inputs),
            commit=commit,
            changed=changed,
            release=plasticity.__version__,
        )
        text = json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"
        with atomic_write(location) as part, explain_write_errors(location):
            part.write_text(text, encoding="utf-8")


def checked_digest(path: Path) -> str:
    """Compute the checksum of an input, and check it against the record.

    Raises:
        StudyError: the file is missing or cannot be read, or it is a result that differs from its
            record.
    """
    try:
        checksum = digest(path)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read ({error.strerror}): delete it, then start snakemake again to "
            "recompute it"
        ) from error
    record = read(path)
    if record and record.sha256 != checksum:
        raise StudyError(
            f"{path} differs from the file that {record.source} wrote: it was edited, or copied "
            "incompletely. Restore the original, or delete it and start snakemake again to "
            "recompute it"
        )
    return checksum


def _parts_below_results(path: Path) -> tuple[str, ...]:
    """Return the parts of a path below `results/`, the study first, or nothing if it is outside."""
    absolute = Path.cwd() / path
    results = code_digest.ROOT / "results"
    if not absolute.is_relative_to(results):
        return ()
    return absolute.relative_to(results).parts
