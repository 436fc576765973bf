"""Choices that go by file name: `methods/l2.py` is the method `l2` of a config. The only dynamic import of the house.

Because a config names files, a job's code digest takes in just the files that its settings name: a new method
retrains no other. Standard library only, so that the launcher can list and check names without importing torch.
"""

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from plasticity.errors import StudyError

LIBRARY = Path(__file__).resolve().parents[1]
FOLDERS = {
    "datasets": "data/datasets",
    "shifts": "data/shifts",
    "architectures": "models/architectures",
    "methods": "training/methods",
    "optimizers": "training/optimizers",
    "operators": "curvature/operators",
    "figures": "report/figures",
}
CLASSES = {
    "datasets": "Dataset",
    "shifts": "Shift",
    "architectures": "Network",
    "methods": "Method",
    "optimizers": "Optimizer",
    "operators": "Operator",
    "figures": "Figure",
}


def names(kind: str) -> list[str]:
    """All names that `kind` (such as ``methods``, see `FOLDERS`) offers, sorted."""
    return sorted(
        path.stem for path in (LIBRARY / FOLDERS[kind]).glob("*.py") if path.stem != "__init__"
    )


def path(kind: str, name: str) -> Path:
    """The file behind a name."""
    return LIBRARY / FOLDERS[kind] / f"{name}.py"


def load(kind: str, name: str) -> ModuleType:
    """Import the file behind a name."""
    return importlib.import_module(f"plasticity.{FOLDERS[kind].replace('/', '.')}.{name}")


def build(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """An instance of the file's class, with its fields."""
    return getattr(load(kind, name), CLASSES[kind])(**options)


class Field(NamedTuple):
    """An annotated field of a file's class: what its type is called, and whether it must be given."""

    type: str
    required: bool


def fields(kind: str, name: str) -> dict[str, Field]:
    """The annotated fields of the file's class, read without importing it: what a config may set."""
    lines = [line for line in _body(kind, name) if isinstance(line, ast.AnnAssign)]
    found = {
        ast.unparse(line.target): Field(ast.unparse(line.annotation), line.value is None)
        for line in lines
    }
    return {field: what for field, what in found.items() if "ClassVar" not in what.type}


def constant(kind: str, name: str, constant: str) -> Any:
    """A literal that the file's class, or a file without one, gives to a name in capitals, read without importing it; None if it has none.

    Raises:
        StudyError: it is no literal.
    """
    found = None
    for line in _body(kind, name):
        match line:
            case ast.Assign([ast.Name(target)], value) | ast.AnnAssign(
                ast.Name(target), value=ast.expr() as value
            ) if target == constant:
                try:
                    found = ast.literal_eval(value)
                except (ValueError, TypeError) as error:
                    what = f"{kind}/{name}.py: {constant} is {ast.unparse(value)}"
                    raise StudyError(
                        f"{what}, which cannot be known without running it: write its value out"
                    ) from error
    return found


def network_of(method: str) -> dict[str, Any]:
    """What a method sets of a setting's network."""
    return constant("methods", method, "NETWORK") or {}


def _body(kind: str, name: str) -> list[ast.stmt]:
    """The lines of the file's class, or of the file where it has none."""
    lines = ast.parse(path(kind, name).read_text(encoding="utf-8")).body
    return next(
        (
            node.body
            for node in lines
            if isinstance(node, ast.ClassDef) and node.name == CLASSES[kind]
        ),
        lines,
    )
