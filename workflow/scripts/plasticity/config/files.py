"""Check configs before Snakemake reads them, and the folder of temporary files.

YAML accepts files that nobody means: a key that occurs twice, of which the last one wins; numbers
such as ``0400`` and ``1:30``, which are octal and base 60; aliases that multiply into millions of
values. Each of these, and each file that cannot be read, gives one sentence with its place.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from plasticity.errors import StudyError

MAX_BYTES = 2**20
TEMPORARY_BYTES = 10**6  # more than Snakemake's scheduler writes
MAX_DEPTH = 50  # lists and mappings inside each other
MAX_VALUES = 10**5  # after aliases are replaced by what they stand for
OCTAL = re.compile(r"[-+]?0[0-7_]*[0-7][0-7_]*")
KINDS = {"str", "int", "float", "bool", "null", "seq", "map", "merge", "value"}
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


def check_config_file(path: Path) -> None:
    """Raise if a config file cannot be read, or has what YAML reads in an unexpected way.

    Args:
        path: of a YAML file.

    Raises:
        StudyError: with file, line and column.
    """
    text = _read(path)
    try:
        root = _compose(path, text)
    except yaml.MarkedYAMLError as error:
        raise StudyError(_explain(path, text, error)) from None
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if root is None:
        raise StudyError(f"{path} is empty. Write a study into it, or copy config.yaml.")
    if not isinstance(root, yaml.MappingNode):
        raise StudyError(
            f"{_place(path, root.start_mark)}: a study is a mapping of keys to values, such as "
            f"`study: mine`, but the file has {_kind(root)}."
        )
    for node in _distinct_nodes(root):
        if isinstance(node, yaml.MappingNode):
            _check_keys(path, node)
        elif isinstance(node, yaml.ScalarNode):
            _check_number(path, node)
        _check_tag(path, node)
    _check_size(path, root)


def check_temporary_folder() -> None:
    """Check that there is room for temporary files, which Snakemake and some jobs write.

    Raises:
        StudyError: if there is not.
    """
    # not what `tempfile` chooses, because it would look for another folder
    folder = os.environ.get("TMPDIR") or "/tmp"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TEMPORARY_BYTES))
    except OSError as error:
        raise StudyError(
            f"temporary files cannot be written to {folder} ({error.strerror}). Free some space "
            "there, or set the environment variable TMPDIR to a folder with space."
        ) from error


def _read(path: Path) -> str:
    """Read a file as UTF-8, with or without a byte order mark."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudyError(f"{path} has more than {MAX_BYTES:,} bytes, so it is no config file.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist. Correct the name of the config file.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise StudyError(
            f"{path}, line {line}: the file is not UTF-8. Save it in the encoding UTF-8."
        ) from None


def _compose(path: Path, text: str) -> yaml.Node | None:
    """Parse a text into nodes, unless it is nested too deeply."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise StudyError(
                f"{_place(path, event.start_mark)}: more than {MAX_DEPTH} lists and mappings are "
                "inside each other. No study needs that."
            )
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _explain(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    """Write an error of the YAML parser as a sentence with its place and advice."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if mark and "\t" in line[: mark.column + 1]:
        return f"{_place(path, mark)}: a tab is in the indentation. Replace it by spaces."
    problem = error.problem or "it is not YAML"
    return (
        f"{_place(path, mark)}: {problem}. Check the indentation, brackets and quotes of this line."
    )


def _place(path: Path, mark: Any) -> str:
    """Name file, line and column."""
    if mark is None:
        return str(path)
    return f"{path}, line {mark.line + 1}, column {mark.column + 1}"


def _kind(node: yaml.Node) -> str:
    """Name the kind of a node."""
    return "a list" if isinstance(node, yaml.SequenceNode) else "one value"


def _children(node: yaml.Node) -> list[yaml.Node]:
    """List the nodes of which a node consists."""
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _distinct_nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield each node once, even if aliases refer to it, in the order of the file."""
    waiting = [root]
    visited = set()
    while waiting:
        node = waiting.pop()
        if id(node) not in visited:
            visited.add(id(node))
            yield node
            waiting += reversed(_children(node))


def _check_keys(path: Path, mapping: yaml.MappingNode) -> None:
    """Raise if a key occurs twice in a mapping, or is no text."""
    first_lines: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise StudyError(
                f"{_place(path, key.start_mark)}: a key is {_kind(key)}. Write a word before the "
                "colon."
            )
        if key.value in first_lines:
            raise StudyError(
                f"{_place(path, key.start_mark)}: the key {key.value!r} occurs twice; the first is "
                f"in line {first_lines[key.value]}. Rename or remove one of them."
            )
        first_lines[key.value] = key.start_mark.line + 1 if key.start_mark else 0


def _check_number(path: Path, scalar: yaml.ScalarNode) -> None:
    """Raise if YAML reads a plain number as octal or in base 60."""
    if scalar.style is not None:
        return
    if OCTAL.fullmatch(scalar.value):
        base, decimal = "in base 8", scalar.value.replace("_", "").lstrip("0+-") or "0"
    elif BASE_60.fullmatch(scalar.value):
        base, decimal = "in base 60", f'"{scalar.value}"'
    else:
        return
    raise StudyError(
        f"{_place(path, scalar.start_mark)}: YAML reads {scalar.value} as a number {base}. Write "
        f"{decimal}."
    )


def _check_tag(path: Path, node: yaml.Node) -> None:
    """Raise if a value is not text, a number, a truth value, null, a list or a mapping."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "timestamp":
        raise StudyError(
            f"{_place(path, node.start_mark)}: YAML reads {node.value} as a date. Write "
            f'"{node.value}".'
        )
    if kind not in KINDS:
        raise StudyError(
            f"{_place(path, node.start_mark)}: the tag {node.tag!r} is not allowed. Remove it."
        )


def _check_size(path: Path, root: yaml.Node) -> None:
    """Raise if aliases refer to themselves, or multiply the values beyond reason."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise StudyError(
                f"{_place(path, node.start_mark)}: an alias refers to what contains it. Write the "
                "values out."
            )
        open_nodes.add(id(node))
        total = 1 + sum(size(child) for child in _children(node))
        open_nodes.remove(id(node))
        sizes[id(node)] = total
        return total

    if size(root) > MAX_VALUES:
        raise StudyError(
            f"{path}: aliases expand it to more than {MAX_VALUES:,} values. Write a shorter study."
        )
