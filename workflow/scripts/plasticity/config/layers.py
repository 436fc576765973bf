"""Merge what defines a study: config files, the studies that they extend, and ``--config``.

Every layer changes the ones before it, by the same rule. Mappings are merged key by key. Lists and
single values replace the old ones. A key that is null removes the old one. The result is an
ordinary config: jobs, records and captions see no difference to a study that is written out.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from plasticity.config import names
from plasticity.config.files import check_config_file
from plasticity.config.spelling import hint
from plasticity.errors import StudyError

EXTENDS = "extends"
NAME = "study"
OPTION = "--config"

Config = dict[str, Any]


def read_config(paths: Sequence[Path], assignments: Sequence[str] = ()) -> Config:
    """Read a study from its layers.

    Args:
        paths: config files. The first is a study, and each of the others changes the ones before
            it.
        assignments: ``key=value`` as after ``--config``; they change the files.

    Raises:
        StudyError: a layer cannot be read or merged.
    """
    config = _read_file(paths[0], ())
    for path in paths[1:]:
        changes = _load(path)
        if EXTENDS in changes:
            raise StudyError(
                f"{path} is the second config file, so it changes {paths[0]} and cannot extend "
                f"{changes[EXTENDS]}. Remove the key {EXTENDS!r}, or name {path} first."
            )
        config = merge(config, changes, str(path))
    for changes in map(parse_assignment, assignments):
        config = merge(config, changes, OPTION)
    return config


def merge(base: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> Config:
    """Apply changes to a config.

    Args:
        base: stays as it is.
        changes: mappings are merged key by key, null removes a key, and all else replaces it.
        source: of the changes, for messages.

    Raises:
        StudyError: a key that is not there is removed.
    """
    return _merge(base, changes, source, "")


def parse_assignment(text: str) -> Config:
    """Parse ``seeds.report=2`` or ``seeds={report: 2}`` into ``{"seeds": {"report": 2}}``.

    Values are read as in a config file.

    Raises:
        StudyError: the text is no assignment, or its value is not YAML.
    """
    key, sign, value = text.partition("=")
    keys = key.strip().split(".")
    if not sign or not all(keys):
        raise StudyError(
            f"{OPTION} {text} sets no key. Write KEY=VALUE, such as {OPTION} seeds.report=2."
        )
    try:
        changes = yaml.safe_load(value)
    except yaml.YAMLError:
        raise StudyError(
            f"{OPTION} {text} has a value that is not YAML. Check its brackets and quotes."
        ) from None
    for name in reversed(keys):
        changes = {name: changes}
    return dict(changes)


def without_dots(assignment: str) -> str:
    """Write ``seeds.report=2`` as ``seeds={"report": 2}``, because Snakemake refuses dots in keys.

    Raises:
        StudyError: as `parse_assignment`.
    """
    if "." not in assignment.partition("=")[0]:
        return assignment
    ((key, value),) = parse_assignment(assignment).items()
    return f"{key}={json.dumps(value)}"


def _merge(
    base: Mapping[str, Any], changes: Mapping[str, Any], source: str, section: str
) -> Config:
    """Apply changes to a section, whose name ends with a dot."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        dotted = f"{section}{key}"
        if value is None and key not in base:
            raise StudyError(
                f"{source}: {dotted} is null, which removes a key, but there is none with this "
                f"name. {hint(key, list(map(str, base)))}"
            )
        if value is None:
            del merged[key]
        elif isinstance(value, Mapping):
            old = merged.get(key)
            old = old if isinstance(old, Mapping) else {}
            merged[key] = _merge(old, value, source, f"{dotted}.")
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _read_file(path: Path, extending: Sequence[Path]) -> Config:
    """Read a config file and the studies that it extends.

    Args:
        path: of the file.
        extending: the files that extend it, the first one first.
    """
    config = _load(path)
    if EXTENDS not in config:
        return config
    name = config.pop(EXTENDS)
    if not isinstance(name, str):
        raise StudyError(
            f"{path}: {EXTENDS} is {name!r}. Write the name of a study, such as mnist, or a path."
        )
    if NAME not in config:
        raise StudyError(
            f"{path} extends {name} and has no name of its own, so it would replace the results of "
            f"{name}. Add a line such as `{NAME}: {path.stem}`."
        )
    try:
        base = names.find(name, path.parent)
    except StudyError as error:
        raise StudyError(f"{path}: {EXTENDS}: {error}") from None
    chain = [*extending, path]
    if any(base.resolve() == other.resolve() for other in chain):
        files = " extends ".join(map(str, [*chain, base]))
        raise StudyError(f"{files}, which is a circle. Remove one of the keys {EXTENDS!r}.")
    return merge(_read_file(base, chain), config, str(path))


def _load(path: Path) -> Config:
    """Check and read a config file."""
    check_config_file(path)
    text = path.read_bytes().decode("utf-8-sig")
    try:
        return dict(json.loads(text))  # as Snakemake does, because YAML reads 1e-3 as a text
    except ValueError:
        return dict(yaml.safe_load(text))
