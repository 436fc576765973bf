"""Plug-ins by file name: `training/methods/l2.py` is the method `l2` of a config.

This is the only dynamic import of the project. A config names files, so the code digest of a job
contains only the files that its settings name, and a new method retrains no other. The launcher
lists and checks plug-ins by their syntax tree, without importing torch.
"""

import ast
import functools
import importlib
from collections.abc import Mapping, Sequence
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
    "treatments": "interventions/treatments",
    "figures": "report/figures",
}
INIT = "__init__"
CLASSES = {
    "datasets": "Dataset",
    "shifts": "Shift",
    "architectures": "Network",
    "methods": "Method",
    "optimizers": "Optimizer",
    "operators": "Operator",
    "treatments": "Treatment",  # the files of these two have no class
    "figures": "Figure",
}


class Field(NamedTuple):
    """A field of a plug-in's class, which a config may set.

    Attributes:
        type: the text of its annotation.
        required: whether it has no default.
    """

    type: str
    required: bool


def names(kind: str) -> list[str]:
    """List the plug-ins of a kind by name. Kinds, such as ``methods``, are in `FOLDERS`.

    Files whose names are no Python names are left out, such as the locks of editors (``.#l2.py``).
    """
    files = (LIBRARY / FOLDERS[kind]).glob("*.py")
    return sorted(file.stem for file in files if file.stem.isidentifier() and file.stem != INIT)


def path(kind: str, name: str) -> Path:
    """Return the file of a plug-in."""
    return LIBRARY / FOLDERS[kind] / f"{name}.py"


def load(kind: str, name: str) -> ModuleType:
    """Import the file of a plug-in."""
    folder = FOLDERS[kind].replace("/", ".")
    return importlib.import_module(f"plasticity.{folder}.{name}")


def build(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """Build an instance of a plug-in's class.

    Args:
        kind: a key of `FOLDERS`.
        name: name of the plug-in.
        options: values of the class's fields.
    """
    return getattr(load(kind, name), CLASSES[kind])(**options)


def fields(kind: str, name: str) -> dict[str, Field]:
    """Read the annotated fields of a plug-in's class, without an import."""
    declared: dict[str, Field] = {}
    for statement in _body(path(kind, name), CLASSES[kind]):
        if isinstance(statement, ast.AnnAssign):
            annotation = ast.unparse(statement.annotation)
            if "ClassVar" not in annotation:
                key = ast.unparse(statement.target)
                declared[key] = Field(annotation, required=statement.value is None)
    return declared


def constant(kind: str, name: str, target: str) -> Any:
    """Read a constant of a plug-in's class, or of its file if that has no class, without an import.

    Returns:
        The value, or None if the plug-in does not define the constant.

    Raises:
        StudyError: if the value is not a literal.
    """
    value = None
    for statement in _body(path(kind, name), CLASSES[kind]):
        expression = _assigned_value(statement, target)
        if expression is not None:
            value = _literal(expression, f"{kind}/{name}.py: {target}")
    return value


def network_of(method: str) -> dict[str, Any]:
    """Return the keys of a setting's network that a method sets."""
    return constant("methods", method, "NETWORK") or {}


def images_of(dataset: Mapping[str, Any]) -> int | None:
    """Return the number of images of a dataset, or None if it is not known without its files.

    Args:
        dataset: its section of a config, with `kind`.
    """
    kind = dataset["kind"]
    images: int | None = constant("datasets", kind, "IMAGES")
    for option, images_per_item in (constant("datasets", kind, "IMAGES_PER") or {}).items():
        if isinstance(dataset.get(option), list):
            images = images_per_item * len(dataset[option])
    return images


def files_of(dataset: Mapping[str, Any]) -> Sequence[str]:
    """Return what a dataset reads below the data root; nothing, if it reads no files.

    Args:
        dataset: its section of a config, with `kind`.
    """
    files: Sequence[str] | None = constant("datasets", dataset["kind"], "FILES")
    if files is not None:
        return files
    return [str(dataset.get("path", f"the files of {dataset['kind']}"))]


def _assigned_value(statement: ast.stmt, target: str) -> ast.expr | None:
    """Return the value that a statement assigns to a name, if it does."""
    match statement:
        case ast.Assign([ast.Name(name)], value) if name == target:
            return value
        case ast.AnnAssign(ast.Name(name), value=value) if name == target:
            return value
    return None


def _literal(value: ast.expr, subject: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError) as error:
        raise StudyError(
            f"{subject} is {ast.unparse(value)}, which is not a literal. Write its value out."
        ) from error


def _body(file: Path, class_name: str) -> list[ast.stmt]:
    """Return the statements of a file's class, or of the file if it has no such class.

    Raises:
        StudyError: the file cannot be read as Python.
    """
    try:
        statements = _parse(file.read_text(encoding="utf-8-sig")).body
    except (OSError, SyntaxError, ValueError) as error:
        raise StudyError(unreadable(file, error)) from error
    for statement in statements:
        if isinstance(statement, ast.ClassDef) and statement.name == class_name:
            return statement.body
    return statements


def unreadable(file: Path, error: Exception) -> str:
    """Say which Python file cannot be read, and why."""
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    reason = error.msg if isinstance(error, SyntaxError) else error
    return f"{file}{line}: Python cannot read this file: {reason}. Correct it, or move it away."


@functools.lru_cache(maxsize=256)  # a check of a config reads the same few files many times
def _parse(text: str) -> ast.Module:
    return ast.parse(text)
