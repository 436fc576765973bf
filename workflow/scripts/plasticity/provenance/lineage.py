"""The way back from a result to the original data, by records: of what each file was made, and whether it still is."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from plasticity.errors import StudyError
from plasticity.provenance import record as records
from plasticity.provenance.code_digest import ROOT
from plasticity.provenance.record import Record


class Step(NamedTuple):
    """One file on the way.

    Attributes:
        name: as records call it.
        path: where it lies.
        record: of how it was made; None of a file that no job made, such as a style.
        faults: what is not as the records say.
    """

    name: str
    path: Path
    record: Record | None
    faults: list[str]


def chain(result: Path, wanted: Callable[[str], bool] = lambda name: True) -> list[Step]:
    """Every file that a result was made of: the result first, and each before all that it was made of.

    Args:
        result: a file below `results/`.
        wanted: whether an input of that name is to be followed.

    Raises:
        StudyError: it is not there, or has no record.
    """
    if not result.is_file():
        raise StudyError(
            f"{result} is not there: name a result, such as results/digits/figures/scatter.svg"
        )
    if not records.read(result):
        raise StudyError(
            f"{result} has no record of how it was made: name a result of a study, or make it anew"
        )
    order: dict[Path, Record | None] = {}

    def visit(path: Path) -> None:
        record = records.read(path)
        for name in record.inputs if record else ():
            if wanted(name) and (made_of := _found(result, name)) not in order:
                visit(made_of)
        order[path] = record

    visit(result)
    return [
        Step(records.name(path), path, record, list(faults(path)))
        for path, record in reversed(order.items())
    ]


def faults(path: Path) -> Iterator[str]:
    """What is not as a result's record says: its content, or that of a file that it was made of, where that is still there."""
    if not path.exists():
        yield "is not there"
        return
    record = records.read(path)
    if record and _digest(path) != record.sha256:
        yield "is not what was made: edited, or copied by half"
    for name, digest in record.inputs.items() if record else ():
        if (made_of := _found(path, name)).exists() and _digest(made_of) != digest:
            yield f"was made of another {name}"


def _found(result: Path, name: str) -> Path:
    """The file that a result's record calls by that name: of the study, else of the repository."""
    place = records.place(result)
    home = (
        next((at.parent for at in place.parents if at.name == records.FOLDER), ROOT)
        if place
        else ROOT
    )
    return home / name if (home / name).exists() or not (ROOT / name).exists() else ROOT / name


def _digest(path: Path) -> str:
    about = path.stat()
    return _digested(path, about.st_mtime_ns, about.st_size)


@functools.cache  # every ensemble was made of the same data
def _digested(path: Path, changed: int, size: int) -> str:
    return records.digest(path)
