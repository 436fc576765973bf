"""Trace a result back to the original data through its records, and compare files with them."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from plasticity.errors import StudyError
from plasticity.provenance import record as records
from plasticity.provenance.code_digest import ROOT
from plasticity.provenance.record import Record


class Step(NamedTuple):
    """One file in the lineage of a result.

    Attributes:
        name: of the file in records.
        path: of the file.
        record: None for a file that no job wrote, such as a style.
        mismatches: how the file or its inputs differ from the record.
    """

    name: str
    path: Path
    record: Record | None
    mismatches: list[str]


def trace(result: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> list[Step]:
    """List every file from which a result was computed, directly or not.

    Args:
        result: a file below `results/`.
        is_wanted: whether to follow the input of that name.

    Returns:
        The result first, and each file before all its inputs.

    Raises:
        StudyError: the result does not exist, or has no record.
    """
    if not result.is_file():
        raise StudyError(
            f"{result} does not exist: name a result, such as results/digits/figures/scatter.svg"
        )
    if not records.read(result):
        raise StudyError(
            f"{result} has no provenance record: name a result of a study, or recompute it"
        )
    inputs_first: dict[Path, Record | None] = {}

    def visit(path: Path) -> None:
        record = records.read(path)
        for name in record.inputs if record else ():
            if not is_wanted(name):
                continue
            input_path = _locate(name, result)
            if input_path not in inputs_first:
                visit(input_path)
        inputs_first[path] = record

    visit(result)
    return [
        Step(records.portable_name(path), path, record, list(mismatches(path)))
        for path, record in reversed(inputs_first.items())
    ]


def mismatches(path: Path) -> Iterator[str]:
    """Yield how a result differs from its record: its own content, or that of its inputs.

    Inputs that no longer exist are no mismatch.
    """
    if not path.exists():
        yield "does not exist"
        return
    if not path.is_file():
        yield "is not a file"
        return
    record = records.read(path)
    if record is None:
        return
    if _digest(path) != record.sha256:
        yield "its checksum differs from its record: it was edited, or copied incompletely"
    for name, checksum in record.inputs.items():
        input_path = _locate(name, path)
        if input_path.exists() and _digest(input_path) != checksum:
            yield f"its input {name} has changed"


def _locate(name: str, result: Path) -> Path:
    """Find the file that the record of a result names: in the study, or else in the repository."""
    in_repository = ROOT / name
    location = records.record_path(result)
    if location is None:
        return in_repository
    study = next(
        (folder.parent for folder in location.parents if folder.name == records.FOLDER), ROOT
    )
    in_study = study / name
    if in_repository.exists() and not in_study.exists():
        return in_repository
    return in_study


def _digest(path: Path) -> str:
    """Compute the checksum of a file, once for each of its versions; empty if it is no file."""
    if not path.is_file():
        return ""
    status = path.stat()
    return _digest_version(path, status.st_mtime_ns, status.st_size)


@functools.cache  # all ensembles have the same dataset as input
def _digest_version(path: Path, modified: int, size: int) -> str:
    """Compute the checksum of a file; `modified` and `size` are the key of the cache."""
    return records.digest(path)
