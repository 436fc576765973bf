"""Rooms of the library depend on each other in one order only."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "workflow" / "scripts" / "plasticity"
BASICS = {"errors", "log", "rng", "atomic"}
# what each room may import besides the basics and itself
MAY_IMPORT = {
    "config": set(),
    "provenance": {"config"},
    "storage": {"config", "provenance"},
    "data": {"config", "provenance", "storage"},
    "models": {"config", "provenance", "storage", "data"},
    "training": {"config", "provenance", "storage", "data", "models"},
    "curvature": {"config", "provenance", "storage", "data", "models"},
}
MAY_IMPORT["interventions"] = {*MAY_IMPORT["training"], "training", "curvature"}
MAY_IMPORT["statistics"] = {*MAY_IMPORT["interventions"], "interventions"}
MAY_IMPORT["report"] = {*MAY_IMPORT["statistics"], "statistics"}


def room_of(path: Path) -> str:
    """Return the first part of a module's name below the library."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms whose modules a file imports, anywhere in its text."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "plasticity":
            names = [f"plasticity.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("plasticity.")}
    return rooms


# the few other modules at the top, such as job.py, may import every room
FILES = [path for path in sorted(LIBRARY.rglob("*.py")) if room_of(path) in {*BASICS, *MAY_IMPORT}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_module_imports_only_rooms_that_come_before_its_own(path):
    room = room_of(path)
    allowed = {*BASICS, *MAY_IMPORT[room], room} if room in MAY_IMPORT else BASICS
    assert imported_rooms(path) <= allowed


def test_every_folder_is_a_known_room():
    folders = {
        path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert folders == set(MAY_IMPORT)


# the library's version, and the operators that users import
NOT_EMPTY = {LIBRARY / "__init__.py", LIBRARY / "curvature/__init__.py"}


@pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("__init__.py")), ids=lambda path: str(path.relative_to(LIBRARY))
)
def test_package_holds_only_a_docstring_and_imports_nothing_that_computes(path):
    """Otherwise every job below it would depend on what it imports."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(statements[0], ast.Expr)
    assert (len(statements) > 1) == (path in NOT_EMPTY)
    assert imported_rooms(path) <= {"config"}
