"""Find the config file of a study by the name that a user gives.

A study has one name everywhere, as in ``make run STUDY=mnist``, ``make explore STUDY=mnist`` and
``extends: mnist``: that of its file in `studies/`. A path works as well.
"""

import re
from pathlib import Path

from plasticity.config import registry
from plasticity.config.spelling import hint
from plasticity.errors import StudyError

REPOSITORY = registry.LIBRARY.parents[2]
CONFIG = "config.yaml"
STUDIES = "studies"
DEFAULT = ("default", "config")  # names of the default study, besides the one in its config
SUFFIXES = (".yaml", ".yml", ".json")


def find(name: str, folder: Path | None = None) -> Path:
    """Find the config file of a study.

    Args:
        name: a path, ``default``, or a name of a file in `studies/`, such as ``mnist`` or
            ``small/mnist``.
        folder: to which a path is relative (default: the working directory).

    Returns:
        The path, relative if `name` is a relative path or the study is in the working directory.

    Raises:
        StudyError: there is no such study; the message lists the names of all.
    """
    path = Path(name).expanduser()
    if path.suffix in SUFFIXES:
        path = path if folder is None else folder / path
        if path.is_file():
            return path
        raise StudyError(f"The study {name} does not exist: there is no file {path}. {_hint(name)}")
    known = known_studies()
    if name not in known:
        raise StudyError(f"There is no study {name!r}. {_hint(name)}")
    found = known[name]
    if found.is_relative_to(Path.cwd()):
        return found.relative_to(Path.cwd())
    return found


def name_of(path: Path) -> str:
    """Name a config file as `find` does, or by its path if it is in no folder `studies/`."""
    for name, known in reversed(known_studies().items()):
        if name not in DEFAULT and known.resolve() == path.resolve():
            return name
    return str(path)


def known_studies() -> dict[str, Path]:
    """List the studies of the repository and of the working directory, by all their names.

    The default study is that of the repository.
    """
    studies: dict[str, Path] = {}
    default = REPOSITORY / CONFIG
    for path in (default, *_files_in(REPOSITORY), *_files_in(Path.cwd())):
        # the name in the config is known too, because it is that of the results
        studies.setdefault(_name_in(path), path)
    for folder in dict.fromkeys((REPOSITORY, Path.cwd())):
        for path in _files_in(folder):
            studies[str(path.relative_to(folder / STUDIES).with_suffix(""))] = path
    return studies | dict.fromkeys(DEFAULT, default)


def _files_in(folder: Path) -> list[Path]:
    """List the config files in the folder `studies/` of a folder."""
    paths = (folder / STUDIES).rglob("*")
    return sorted(path for path in paths if path.suffix in SUFFIXES)


def _name_in(path: Path) -> str:
    """Read the name of a study from its config; the name of the file if the config has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return path.stem
    match = re.search(r"^study:\s*['\"]?([\w-]+)", text, re.MULTILINE)
    return match[1] if match else path.stem


def _hint(name: str) -> str:
    """Suggest the closest name, and list one name of each study."""
    files = {path: known for known, path in known_studies().items() if known not in DEFAULT}
    return hint(name, sorted(files.values()))
