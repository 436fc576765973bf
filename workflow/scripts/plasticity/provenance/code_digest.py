"""What a result was made with: the code by meaning, the versions, the settings. Standard library only.

Snakemake tracks neither imported modules nor the values inside a shell line. So every rule has a param `code`: a digest
of each file that its entry imports, transitively, and the version of each package among them that computes numbers or draws. The
digest is of the syntax tree without comments, docstrings and hints of types: layout and prose rerun nothing. Files and packages are
named, so that what is said of a rerun names the one that changed.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plasticity.errors import StudyError

SCRIPTS = Path(__file__).resolve().parents[2]
ROOT = SCRIPTS.parents[1]
PARSED = (
    ROOT / ".snakemake" / "parsed"
)  # what `_parse` found in each version of a file, since parsing all takes a second
PACKAGE = "plasticity"
CONTRACT = "2"  # version of what result files promise (design, netCDF contract); those of version 1 did not name their inputs
# packages that compute or draw, as they are imported and as they are installed; what only stores or shows (xarray, netCDF4, tqdm) is none
WEIGHTY = {
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "torch": "torch",
    "torchvision": "torchvision",
}


def code_digest(entry: Path, named: Iterable[Path] = ()) -> dict[str, str]:
    """Digest of an entry and of every library module that it imports, transitively; versions of the weighty packages among the imports.

    Args:
        entry: the script that a rule calls.
        named: further files that the job loads by name (a method, a figure), with what they import.

    Returns:
        ``{file relative to the repository: 12 hex digits, package: version}``, sorted.
    """
    pending, seen, packages = (
        [entry.resolve(), *(path.resolve() for path in named)],
        set[Path](),
        set[str](),
    )
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            dotted = _parsed(path.read_text(encoding="utf-8"), str(path))[1]
            pending += _files(path, dotted)
            packages |= {
                WEIGHTY[root]
                for root in (name.partition(".")[0] for name in dotted)
                if root in WEIGHTY
            }
    return {str(path.relative_to(ROOT)): file_digest(path) for path in sorted(seen)} | {
        name: version(name) for name in sorted(packages)
    }


@functools.cache
def version(package: str) -> str:
    """Of a package that is installed."""
    return importlib.metadata.version(package)


def commit() -> tuple[str, bool]:
    """The commit that git has checked out, and whether files differ from it; an empty name where there is no git or no repository."""
    try:
        asked = (
            ["git", "rev-parse", "HEAD"],
            ["git", "--no-optional-locks", "status", "--porcelain"],
        )
        name, changed = (
            subprocess.run(one, cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for one in asked
        )
    except (OSError, subprocess.SubprocessError):
        return "", False
    return name.strip(), bool(changed)


def file_digest(path: Path) -> str:
    """Digest of a Python file's meaning: its syntax tree without comments, docstrings, layout, and hints of types but those of fields."""
    return _parsed(path.read_text(encoding="utf-8"), str(path))[0]


def check_code_unchanged(code: Mapping[str, str]) -> None:
    """Stop a job whose code is no longer the code that it was planned with.

    Args:
        code: the digest from the time of planning, as `code_digest` gives it.

    Raises:
        StudyError: a file was edited or removed, or a package changed, while the job was queued.
    """
    for name, digest in code.items():
        try:
            same = (
                version(name) if name in WEIGHTY.values() else file_digest(ROOT / name)
            ) == digest
        except (OSError, SyntaxError, importlib.metadata.PackageNotFoundError):
            same = False
        if not same:
            changed = (
                f"{name} has another version than when"
                if name in WEIGHTY.values()
                else f"{name} was edited after"
            )
            raise StudyError(
                f"{changed} this job was planned, so its result would not be what its label says: start snakemake again"
            )


def stamp(source: str, settings: object, code: Mapping[str, str]) -> dict[str, str]:
    """Global attributes of a result file: nothing about where or when, so that equal results are equal bytes."""
    packages = ("numpy", "torch", "xarray")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return {
        "source": source,
        "contract": CONTRACT,
        "settings": json.dumps(settings, sort_keys=True),
        "code": json.dumps(dict(code), sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }


@functools.cache  # the launcher asks for each file once per entry
def _parsed(text: str, name: str) -> tuple[str, frozenset[str]]:
    """Return what `_parse` finds in a file, from the cache if this version of the file was parsed before."""
    key = hashlib.sha256(f"{platform.python_version()}\n{_own_text()}\n{text}".encode()).hexdigest()
    path = PARSED / f"{key}.json"
    try:
        digest, dotted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        digest, dotted = _parse(text, name)
        _keep(path, [digest, sorted(dotted)])
    return digest, frozenset(dotted)


@functools.cache
def _own_text() -> str:
    """Return the text of this module, because another way to parse finds something else."""
    return Path(__file__).read_text(encoding="utf-8")


def _keep(path: Path, found: list[Any]) -> None:
    """Write a file of the cache, whole or not at all; a folder that cannot be written to has no cache."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()


def _parse(text: str, name: str) -> tuple[str, frozenset[str]]:
    """Of a Python file's text: the digest of its meaning, and the dotted names that it imports."""
    tree = ast.parse(text, filename=name)
    dotted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted.add(node.module)
            dotted.update(f"{node.module}.{alias.name}" for alias in node.names)
    # unparse, not dump: the form of dump changes between Python versions, and would rerun everything
    return hashlib.sha256(ast.unparse(_Meaning().visit(tree)).encode()).hexdigest()[:12], frozenset(
        dotted
    )


class _Meaning(ast.NodeTransformer):
    """Takes docstrings out, and hints of types; those of a class's fields stay, which dataclasses and the registry read."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._plain(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        fields = {id(line) for line in node.body if isinstance(line, ast.AnnAssign)}
        self._undocumented(node)
        node.body = [line if id(line) in fields else self.visit(line) for line in node.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._plain(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._plain(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return (
            ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)
            if node.value
            else None
        )

    def _plain(self, node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self._undocumented(node)
        return self.generic_visit(node)

    def _undocumented(
        self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    ) -> None:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]


@functools.cache  # thousands of looks at the disk, for each entry the same
def _files(path: Path, dotted: frozenset[str]) -> list[Path]:
    """Library files that a file imports by these names, with the packages they lie in."""
    files = []
    for name in dotted:
        parts = name.split(".")
        if parts[0] == PACKAGE:
            prefixes = [SCRIPTS.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
            candidates = [
                file
                for prefix in prefixes
                for file in (prefix / "__init__.py", prefix.with_suffix(".py"))
            ]
            files += [file for file in candidates if file.is_file()]
    own = path.parent / "__init__.py"
    return [*files, own] if own.is_file() else files
