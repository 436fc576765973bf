"""Identify the code, versions and settings that compute a result. Standard library only.

Snakemake tracks neither imported modules nor values inside a shell line. So every rule has a param
`code`: a digest of each file that its entry imports, directly or not, and the version of each
imported package that computes numbers or draws. The digest of a file is that of its syntax tree,
without comments, docstrings, text of messages, layout and type hints, so editing those reruns
nothing. The param names the files and packages, so a reason for a rerun can name the one that
changed.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plasticity.atomic import atomic_write
from plasticity.config import registry
from plasticity.errors import StudyError

SCRIPTS = Path(__file__).resolve().parents[2]
ROOT = SCRIPTS.parents[1]
PARSED = ROOT / ".snakemake" / "parsed"  # cache of `_parse`, since parsing all files takes a second
PACKAGE = "plasticity"
# What prints: the text of its arguments changes no result, so rewording a message reruns nothing.
MESSAGES = {"StudyError", "warn_once"}
LOG_LEVELS = {"debug", "info", "warning", "error", "exception"}  # methods of a logger named `log`
CONTRACT = "2"  # version of the contract of result files; files of version 1 do not name inputs
# Packages that compute or draw, by the name under which they are imported, with the name under
# which they are installed. Packages that only store or show (xarray, netCDF4) are left out.
COMPUTING_PACKAGES = {
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
    """Compute the digest of the code of a job.

    Args:
        entry: the script that the rule calls.
        named: plug-in files that the job loads by name, such as its method.

    Returns:
        12 hex digits for each file, by its path relative to the repository, then the version of
        each package. The files are `entry`, `named` and all library modules that they import.

    Raises:
        StudyError: a file cannot be read as Python.
    """
    pending = [entry.resolve(), *(path.resolve() for path in named)]
    files: set[Path] = set()
    packages: set[str] = set()
    while pending:
        path = pending.pop()
        if path in files:
            continue
        files.add(path)
        try:
            imports = _read_and_parse(path)[1]
        except (OSError, SyntaxError, ValueError) as error:
            raise StudyError(registry.unreadable(path, error)) from error
        pending += _imported_files(path, imports)
        roots = {name.partition(".")[0] for name in imports}
        packages |= {COMPUTING_PACKAGES[root] for root in roots if root in COMPUTING_PACKAGES}
    digests = {str(path.relative_to(ROOT)): file_digest(path) for path in sorted(files)}
    versions = {name: version(name) for name in sorted(packages)}
    return digests | versions


@functools.cache
def version(package: str) -> str:
    """Return the version of an installed package."""
    return importlib.metadata.version(package)


def commit() -> tuple[str, bool]:
    """Return the commit that git has checked out, and whether files differ from it.

    The commit is empty if git is not installed or the folder is no repository.
    """
    try:
        name = _git("rev-parse", "HEAD")
        # otherwise `git status` locks the index, and the user's own git commands could fail
        changes = _git("--no-optional-locks", "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return "", False
    return name.strip(), bool(changes)


def _git(*arguments: str) -> str:
    """Return what a git command prints."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def file_digest(path: Path) -> str:
    """Compute the digest of the syntax tree of a Python file.

    It ignores comments, docstrings, layout and type hints, except the hints of a class's fields.
    """
    return _read_and_parse(path)[0]


def check_code_unchanged(code: Mapping[str, str]) -> None:
    """Stop a job if its code changed after the job was planned.

    Args:
        code: from `code_digest`, when the job was planned.

    Raises:
        StudyError: a file was edited or removed, or a package changed, while the job was queued.
    """
    packages = set(COMPUTING_PACKAGES.values())
    for name, planned in code.items():
        try:
            present = version(name) if name in packages else file_digest(ROOT / name)
        except (OSError, SyntaxError, importlib.metadata.PackageNotFoundError):
            present = None
        if present != planned:
            change = "has another version than when" if name in packages else "was edited after"
            raise StudyError(
                f"{name} {change} this job was planned, so the result would have the wrong label: "
                "start snakemake again"
            )


def stamp(source: str, settings: object, code: Mapping[str, str]) -> dict[str, str]:
    """Create the global attributes that identify how a result is computed.

    They contain no host and no time, so equal results are equal bytes.

    Args:
        source: name of the entry.
        settings: the part of the config that the entry uses.
        code: from `code_digest`.
    """
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for name in ("numpy", "torch", "xarray")}
    return {
        "source": source,
        "contract": CONTRACT,
        "settings": json.dumps(settings, sort_keys=True),
        "code": json.dumps(dict(code), sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }


def _read_and_parse(path: Path) -> tuple[str, frozenset[str]]:
    """Return the digest of a file and the dotted names that it imports."""
    return _parse_cached(path.read_text(encoding="utf-8-sig"), str(path))


@functools.cache  # the launcher asks for each file once per entry
def _parse_cached(text: str, name: str) -> tuple[str, frozenset[str]]:
    """Return the result of `_parse`, from the cache on disk if the same text was parsed before."""
    version_of_file = f"{platform.python_version()}\n{_text_of_this_module()}\n{text}"
    path = PARSED / f"{hashlib.sha256(version_of_file.encode()).hexdigest()}.json"
    try:
        digest, imports = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        digest, imports = _parse(text, name)
        _write_to_cache(path, [digest, sorted(imports)])
    return digest, frozenset(imports)


@functools.cache
def _text_of_this_module() -> str:
    """Return the text of this module, since an edit of `_parse` makes the cache outdated."""
    return Path(__file__).read_text(encoding="utf-8")


def _write_to_cache(path: Path, parsed: list[Any]) -> None:
    """Write a file of the cache; do nothing if the folder is not writable.

    Several processes may write the same file at once. A file that suffers from it is no valid JSON,
    and is parsed again.
    """
    with contextlib.suppress(OSError, StudyError), atomic_write(path) as part:
        part.write_text(json.dumps(parsed), encoding="utf-8")


def _parse(text: str, name: str) -> tuple[str, frozenset[str]]:
    """Compute the digest of a Python file, and the dotted names that it imports.

    Args:
        text: of the file.
        name: of the file, for syntax errors.
    """
    tree = ast.parse(text, filename=name)
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module)
            imports.update(f"{node.module}.{alias.name}" for alias in node.names)
    # unparse, not dump: the form of dump differs between Python versions and would rerun everything
    code = ast.unparse(_DocumentationRemover().visit(tree))
    return hashlib.sha256(code.encode()).hexdigest()[:12], frozenset(imports)


class _DocumentationRemover(ast.NodeTransformer):
    """Remove docstrings and type hints from a syntax tree, because they do not change results.

    The hints of a class's fields stay, because dataclasses and the registry read them.
    """

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """Remove the docstring."""
        _remove_docstring(node)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Remove the docstring; keep fields as they are."""
        _remove_docstring(node)
        body: list[ast.stmt] = []
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign):
                statement = self.visit(statement)
            body.append(statement)
        node.body = body
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove the docstring and the type of the result."""
        _remove_docstring(node)
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """Remove the docstring and the type of the result."""
        _remove_docstring(node)
        node.returns = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Remove the text of messages, but not the values in it."""
        if _is_message(node.func):
            _TextRemover().visit(node)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Remove the type of an argument."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Turn ``x: int = 1`` into ``x = 1``, and remove ``x: int``."""
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)


def _is_message(function: ast.expr) -> bool:
    """Check whether a function only prints: `StudyError`, `warn_once`, or `log.log.warning`."""
    match function:
        case ast.Name(name):
            return name in MESSAGES
        case ast.Attribute(ast.Name("log") | ast.Attribute(attr="log"), method):
            return method in LOG_LEVELS | MESSAGES
    return False


class _TextRemover(ast.NodeTransformer):
    """Replace text by empty text."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Empty a text, also between the values of an f-string."""
        if isinstance(node.value, str):
            node.value = ""
        return node


def _remove_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    """Remove the docstring of a module, class or function, if it has one."""
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]


@functools.cache  # each entry asks for the same files, and looking on disk is slow
def _imported_files(path: Path, imports: frozenset[str]) -> list[Path]:
    """List the library files that a file imports.

    Args:
        path: of the importing file.
        imports: dotted names. A name may be a module or a name in a module, so every prefix is
            tried.

    Returns:
        The modules, and the `__init__.py` of every package around them and around `path`, since
        Python runs those first.
    """
    candidates = [path.parent / "__init__.py"]
    for name in imports:
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        for end in range(1, len(parts) + 1):
            module = SCRIPTS.joinpath(*parts[:end])
            candidates += [module / "__init__.py", module.with_suffix(".py")]
    return [candidate for candidate in candidates if candidate.is_file()]
