"""What a result was made with: the code by meaning, the versions, the settings. Standard library only.

Snakemake tracks neither imported modules nor the values inside a shell line. So every rule has a param `code`: a digest
of each file that its entry imports, transitively. The digest is of the syntax tree without comments and docstrings:
layout and prose rerun nothing. The files are named, so that Snakemake's rerun reason names the one that changed.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from plasticity.errors import StudyError

SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parents[1]
PACKAGE = "plasticity"


def code_digest(entry: Path, named: Iterable[Path] = ()) -> dict[str, str]:
    """Digest of an entry and of every library module that it imports, transitively.

    Args:
        entry: the script that a rule calls.
        named: further files that the job loads by name (a method, a figure), with what they import.

    Returns:
        ``{file relative to the repository: 12 hex digits}``, sorted by file.
    """
    pending, seen = [entry.resolve(), *(path.resolve() for path in named)], set[Path]()
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += _imports(path)
    return {str(path.relative_to(ROOT)): file_digest(path) for path in sorted(seen)}


def file_digest(path: Path) -> str:
    """Digest of a Python file's meaning: its syntax tree without comments, docstrings and layout."""
    return _parsed(path.read_text(encoding="utf-8"), str(path))[0]


def refuse_changed_code(code: Mapping[str, str]) -> None:
    """Stop a job whose code is no longer the code that it was planned with.

    Args:
        code: the digest from the time of planning, as `code_digest` gives it.

    Raises:
        StudyError: a file was edited or removed while the job was queued.
    """
    for name, digest in code.items():
        try:
            same = file_digest(ROOT / name) == digest
        except (OSError, SyntaxError):
            same = False
        if not same:
            raise StudyError(
                f"{name} was edited after this job was planned, so its result would not be what its label says: start snakemake again"
            )


def stamp(source: str, settings: object, code: Mapping[str, str]) -> dict[str, str]:
    """Global attributes of a result file: nothing about where or when, so that equal results are equal bytes."""
    packages = ("numpy", "torch", "xarray")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    return {
        "source": source,
        "settings": json.dumps(settings, sort_keys=True),
        "code": json.dumps(dict(code), sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }


@functools.cache  # the launcher asks for each file once per entry
def _parsed(text: str, name: str) -> tuple[str, frozenset[str]]:
    """Of a Python file's text: the digest of its meaning, and the dotted names that it imports."""
    tree = ast.parse(text, filename=name)
    dotted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted.add(node.module)
            dotted.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    # unparse, not dump: the form of dump changes between Python versions, and would rerun everything
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12], frozenset(dotted)


def _imports(path: Path) -> list[Path]:
    """Library files that a file imports, with the packages they lie in."""
    files = []
    for name in _parsed(path.read_text(encoding="utf-8"), str(path))[1]:
        parts = name.split(".")
        if parts[0] == PACKAGE:
            prefixes = [SCRIPTS.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
            candidates = [file for prefix in prefixes for file in (prefix / "__init__.py", prefix.with_suffix(".py"))]
            files += [file for file in candidates if file.is_file()]
    own = path.parent / "__init__.py"
    return [*files, own] if own.is_file() else files
