"""Fixtures of all tests: projects that are built once, and the environment of their commands."""

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
import yaml
from projects import Project, copy_repository, fork_server, use_packed_study

MEMORY = Path("/dev/shm")
MIN_FREE_BYTES = 4 * 2**30  # in this folder; all tests together use about a quarter of it
NO_NETWORK = "http://127.0.0.1:9"  # no server listens, so a test that uses the network fails
DROPPED_VARIABLES = {"PLASTICITY_DATA", "PYTHONDONTWRITEBYTECODE", "SNAKEMAKE_PROFILE"}

hypothesis.settings.register_profile("full", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=5)


def pytest_configure(config: pytest.Config) -> None:
    """Load the default Hypothesis profile, and write temporary files to memory if it has room.

    A background job of a shell ignores SIGINT, and its child processes inherit that. Tests that
    interrupt a process need the default.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile(config.getoption("--hypothesis-profile") or "full")
    if not os.access(MEMORY, os.W_OK) or not MEMORY.is_dir():
        return
    if shutil.disk_usage(MEMORY).free >= MIN_FREE_BYTES:
        # copies of studies are fastest in memory
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


# At the exit of a job that has a code digest, this module records imports that the digest lacks.
RECORD_IMPORTS = """
import atexit, json, os, sys

def imported_files():
    root = os.getcwd() + os.sep
    files = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.startswith("plasticity") and file.startswith(root):
            files.add(file.removeprefix(root))
    return files

def record():
    if "--code" not in sys.argv[:-1]:
        return
    code = sys.argv[sys.argv.index("--code") + 1]
    if not code.startswith("{"):
        with open(code) as file:
            code = file.read()
    digest = json.loads(code)
    missing = sorted(imported_files() - set(digest))
    with open(os.environ["IMPORT_RECORDS"], "a") as records:
        records.write(json.dumps([sys.argv[0], missing]) + "\\n")

atexit.register(record)
"""


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return `shared(name, fill)`, which calls `fill(path)` in one worker and returns the path."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def fill_once(name: str, fill: Callable[[Path], object]) -> Path:
        path = root / name
        failure = root / f"{name}.failed"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if failure.exists():
                pytest.fail(failure.read_text(), pytrace=False)
            if path.exists():
                return path
            try:
                fill(path)
            except BaseException as error:
                failure.write_text(f"the shared fixture {name} failed: {error}")
                raise
        return path

    return fill_once


@pytest.fixture(scope="session")
def import_recorder(shared):
    """Return a folder for PYTHONPATH, whose module `sitecustomize` records imports of jobs."""

    def write_recorder(folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(RECORD_IMPORTS)

    return shared("import_recorder", write_recorder)


@pytest.fixture(scope="session")
def read_imports(import_recorder):
    """Return a function that lists each finished job with the imports that its digest lacks."""

    def read_records() -> list[tuple[str, list[str]]]:
        lines = (import_recorder / "records").read_text().splitlines()
        return [tuple(json.loads(line)) for line in lines]

    return read_records


def inherited_environment() -> dict[str, str]:
    """Return the environment of the tests, without settings of the user and of pytest."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in DROPPED_VARIABLES and not key.startswith("PYTEST_")
    }


def module_cache(folder: Path) -> dict[str, str]:
    """Return the variable that caches compiled modules in a folder, if packages have none.

    Otherwise each job would compile torch.
    """
    if Path(cache_from_source(yaml.__file__)).exists():
        return {}
    return {"PYTHONPYCACHEPREFIX": str(folder)}


@pytest.fixture(scope="session")
def env(shared, import_recorder):
    """Yield the environment of commands: a forked `python`, caches, no data and no network."""
    cache = shared("cache", Path.mkdir)
    schemes = ("http", "https", "HTTP", "HTTPS", "all")
    variables = {
        **inherited_environment(),
        **module_cache(cache / "modules"),
        **{f"{scheme}_proxy": NO_NETWORK for scheme in schemes},
        "no_proxy": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(import_recorder),
        "IMPORT_RECORDS": str(import_recorder / "records"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
    }
    with TemporaryDirectory() as folder, fork_server(Path(folder), variables) as with_server:
        yield with_server


@pytest.fixture(scope="session")
def new_project(tmp_path_factory, env):
    """Yield `clone()`, which creates a project of the tiny study without results."""
    roots = []

    def create() -> Project:
        root = tmp_path_factory.mktemp("project")
        roots.append(root)
        copy_repository(root)
        return Project(root, env)

    yield create
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def build_study(shared, env):
    """Return `study(name, change, target)`, which builds a changed tiny study once, to read."""

    def build_once(
        name: str,
        change: Callable[[dict[str, Any]], object] = lambda config: None,
        target: str = "all",
    ) -> Project:
        def build(root: Path) -> None:
            copy_repository(root)
            project = Project(root, env)
            project.config(change)
            project.build(target)

        return Project(shared(name, build), env)

    return build_once


@pytest.fixture(scope="session")
def project_without_results(new_project):
    """Create a project of the tiny study without results, to read only."""
    return new_project()


@pytest.fixture(scope="session")
def tiny_study(build_study):
    """Build the tiny study once, to read only."""
    return build_study("built")


@pytest.fixture(scope="session")
def packed_study(build_study):
    """Build the study that `pack` configures once, to read only."""
    return build_study("packed", use_packed_study)
