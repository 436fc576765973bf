"""Shared by all tests: what is built once for all workers, and the environment of commands."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import yaml
from projects import Project, copy_repository, fork_server, pack

IN_MEMORY, ROOM = (
    Path("/dev/shm"),
    4 * 2**30,
)  # bytes that must be free there; all tests together take about one quarter of it
NOWHERE = "http://127.0.0.1:9"  # nothing listens there, so a test that needs a network fails

hypothesis.settings.register_profile("full", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=5)


def pytest_configure(config: pytest.Config) -> None:
    """Draw all examples, unless another profile was asked for; keep the tests' files in memory, where copies of studies cost least."""
    hypothesis.settings.load_profile(config.getoption("--hypothesis-profile") or "full")
    if (
        IN_MEMORY.is_dir()
        and os.access(IN_MEMORY, os.W_OK)
        and shutil.disk_usage(IN_MEMORY).free >= ROOM
    ):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


# At its end, every Python process that was told a digest of code notes what it has loaded beyond it.
NOTE_IMPORTS = """
import atexit, json, os, sys

def note():
    if "--code" in sys.argv[:-1]:
        known = json.loads(sys.argv[sys.argv.index("--code") + 1])
        root = os.getcwd() + os.sep
        files = {getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items()) if name.startswith("plasticity")}
        missing = sorted(name for name in (file.removeprefix(root) for file in files if file.startswith(root)) if name not in known)
        with open(os.environ["NOTED_IMPORTS"], "a") as noted:
            noted.write(json.dumps([sys.argv[0], missing]) + "\\n")

atexit.register(note)
"""


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """``shared(name, make)`` is a path that ``make(path)`` filled, called by the first worker that asks for this name."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def path_of(name: str, make: Callable[[Path], object]) -> Path:
        path, failure = root / name, root / f"{name}.failed"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if failure.exists():
                pytest.fail(failure.read_text(), pytrace=False)
            if not path.exists():
                try:
                    make(path)
                except BaseException as reason:
                    failure.write_text(f"{name} could not be made: {reason}")
                    raise
        return path

    return path_of


@pytest.fixture(scope="session")
def notes(shared):
    """A folder whose sitecustomize has jobs note what they import."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(NOTE_IMPORTS)

    return shared("notes", make)


@pytest.fixture(scope="session")
def imports(notes):
    """``imports()`` is what jobs so far have noted: each its entry, and the modules that its digest lacks."""
    return lambda: [json.loads(line) for line in (notes / "noted").read_text().splitlines()]


@pytest.fixture(scope="session")
def env(shared, notes):
    """Environment of commands: `python` is forked, modules and caches are shared, there is no data root and no network."""
    cache = shared("cache", Path.mkdir)
    # if the environment was installed without compiled modules, compile torch once instead of in every job
    modules = (
        {}
        if Path(cache_from_source(yaml.__file__)).exists()
        else {"PYTHONPYCACHEPREFIX": str(cache / "modules")}
    )
    left_out = {"PLASTICITY_DATA", "PYTHONDONTWRITEBYTECODE", "SNAKEMAKE_PROFILE"}
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in left_out and not key.startswith("PYTEST_")
    }
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **modules,
        "PYTHONPATH": str(notes),
        "NOTED_IMPORTS": str(notes / "noted"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        **{f"{scheme}_proxy": NOWHERE for scheme in ("http", "https", "HTTP", "HTTPS", "all")},
        "no_proxy": "",
    }
    with TemporaryDirectory() as folder, fork_server(Path(folder), env) as forked:
        yield forked


@pytest.fixture(scope="session")
def clone(tmp_path_factory, env):
    """``clone()`` is a new project with nothing built, whose config is the tiny study; it is removed when the session ends."""
    made = []

    def make() -> Project:
        made.append(tmp_path_factory.mktemp("project"))
        copy_repository(made[-1])
        return Project(made[-1], env)

    yield make
    for root in made:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def study(shared, env):
    """``study(name, change)`` is a project whose config was changed and whose study was built, once for all workers; only read it."""

    def project(
        name: str,
        change: Callable[[dict[str, Any]], object] = lambda config: None,
        target: str = "all",
    ) -> Project:
        def make(root: Path) -> None:
            copy_repository(root)
            made = Project(root, env)
            made.config(change)
            made.build(target)

        return Project(shared(name, make), env)

    return project


@pytest.fixture(scope="session")
def unbuilt(clone):
    """A project with no results: to look at, not to change."""
    return clone()


@pytest.fixture(scope="session")
def built(study):
    """The tiny study, built from nothing: to look at, not to change."""
    return study("built")


@pytest.fixture(scope="session")
def packed(study):
    """The study that `pack` makes, built from nothing: to look at, not to change."""
    return study("packed", pack)
