"""Choices that go by file name: `methods/l2.py` is the method `l2` of a config. The only dynamic import of the house.

Because a config names files, a job's code digest takes in just the files that its settings name: a new method
retrains no other. Standard library only, so that the launcher can list and check names without importing torch.
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType

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


def fields(kind: str, name: str) -> list[str]:
    """The annotated fields of the classes in that file, read without importing it: a method's hyper-parameters."""
    tree = ast.parse(path(kind, name).read_text())
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    return [line.target.id for body in bodies for line in body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
