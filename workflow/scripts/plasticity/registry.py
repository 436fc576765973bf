"""Choices that go by file name: `methods/l2.py` is the method `l2` of a config. The only dynamic import of the house.

Because a config names files, a job's code digest takes in just the files that its settings name: a new method
retrains no other. Standard library only, so that the launcher can list and check names without importing torch.
"""

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent


def names(kind: str) -> list[str]:
    """All names that `kind` (a folder of the library, such as ``methods``) offers, sorted."""
    return sorted(path.stem for path in (HERE / kind).glob("*.py") if path.stem != "__init__")


def path(kind: str, name: str) -> Path:
    """The file behind a name."""
    return HERE / kind / f"{name}.py"


def load(kind: str, name: str) -> ModuleType:
    """Import the file behind a name."""
    return importlib.import_module(f"plasticity.{kind}.{name}")


def build(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """An instance of the file's class, with its fields."""
    return getattr(load(kind, name), _class(kind))(**options)


def fields(kind: str, name: str) -> dict[str, bool]:
    """The annotated fields of the file's class, read without importing it, and whether each must be given: what a config may set."""
    tree = ast.parse(path(kind, name).read_text(encoding="utf-8"))
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _class(kind)]
    lines = [line for body in bodies for line in body if isinstance(line, ast.AnnAssign)]
    return {line.target.id: line.value is None for line in lines if isinstance(line.target, ast.Name)}


def _class(kind: str) -> str:
    """The kind in the singular: a file of `methods` has a class `Method`."""
    return kind.removesuffix("s").capitalize()
