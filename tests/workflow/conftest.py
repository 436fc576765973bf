"""What tests of the workflow share: real copies of the repository, and one tiny study that was built from nothing to its report."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STUDY = Path(__file__).with_name("study.yaml")
NOWHERE = "http://127.0.0.1:9"  # nothing listens there, so a test that needs a network fails


@dataclass
class Project:
    """A copy of the repository in which snakemake can run.

    Attributes:
        root: of the copy.
        env: environment of its commands.
    """

    root: Path
    env: dict[str, str]

    @property
    def results(self) -> Path:
        """Where the tiny study's results lie."""
        return self.root / "results" / "tiny"

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command in the project; stderr follows stdout in `stdout`."""
        env, timeout = self.env | options.pop("env", {}), options.pop("timeout", 300)
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(list(map(str, command)), cwd=self.root, env=env, check=False, timeout=timeout, **said, **options)

    def snakemake(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Snakemake on two cores."""
        return self.run(sys.executable, "-m", "snakemake", "--cores", "2", *options, **more)

    def build(self, *options: str, **more: Any) -> None:
        """Snakemake, which must succeed."""
        done = self.snakemake(*options, **more)
        assert done.returncode == 0, done.stdout[-6000:]

    def plan(self, *options: str, **more: Any) -> set[str]:
        """The jobs that snakemake would run: a rule's name and its wildcards, such as ``train_cohort digits_labels_relu/l2/0``."""
        done = self.snakemake("--dry-run", *options, **more)
        assert done.returncode == 0, done.stdout[-6000:]
        jobs = set()
        for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)*)", done.stdout, re.MULTILINE):
            wildcards = re.search(r"^ {4}wildcards: (.*)$", body, re.MULTILINE)
            values = [pair.partition("=")[2] for pair in wildcards[1].split(", ")] if wildcards else []
            jobs.add(f"{rule} {'/'.join(values)}".strip())
        assert bool(jobs) != ("Nothing to be done" in done.stdout), done.stdout[-6000:]
        return jobs

    def config(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the project's config, in place."""
        path = self.root / "config.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def contents(self, folder: str = "results/tiny") -> dict[str, str]:
        """Digest of every file below a folder of the project, by its path there."""
        root = self.root / folder
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def lasting(self) -> dict[str, str]:
        """Digest of every result that must be the same wherever and whenever it is made."""
        kinds = {".nc", ".csv", ".svg", ".pdf", ".png"}
        return {name: digest for name, digest in self.contents().items() if Path(name).suffix in kinds and Path(name).stem != "cost"}

    def append(self, path: str, text: str) -> None:
        """Add lines to a file of the project."""
        with (self.root / path).open("a") as file:
            file.write(text)


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
def notes(tmp_path_factory):
    """A folder whose sitecustomize has jobs note what they import."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "sitecustomize.py").write_text(NOTE_IMPORTS)
    return folder


@pytest.fixture(scope="session")
def imports(notes):
    """``imports()`` is what jobs so far have noted: each its entry, and the modules that its digest lacks."""
    return lambda: [json.loads(line) for line in (notes / "noted").read_text().splitlines()]


@pytest.fixture(scope="session")
def env(tmp_path_factory, notes):
    """The environment's tools first, compiled modules and caches shared by all jobs, no data root, no network."""
    cache = tmp_path_factory.mktemp("cache")
    # an environment that was installed without its modules compiled would have every job compile torch anew
    modules = {} if Path(cache_from_source(yaml.__file__)).exists() else {"PYTHONPYCACHEPREFIX": str(cache / "modules")}
    env = {
        key: value for key, value in os.environ.items() if key not in {"PLASTICITY_DATA", "PYTHONDONTWRITEBYTECODE", "SNAKEMAKE_PROFILE"}
    }
    return env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **modules,
        "PYTHONPATH": str(notes),
        "NOTED_IMPORTS": str(notes / "noted"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        **{f"{scheme}_proxy": NOWHERE for scheme in ("http", "https", "HTTP", "HTTPS", "all")},
        "no_proxy": "",
    }


@pytest.fixture(scope="session")
def clone(tmp_path_factory, env):
    """A new project with nothing built, whose config is the tiny study; gone when the session ends."""
    made = []

    def make() -> Project:
        root = tmp_path_factory.mktemp("project")
        made.append(root)
        listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        shutil.copy(STUDY, root / "config.yaml")
        return Project(root, env)

    yield make
    for root in made:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def unbuilt(clone):
    """A project with no results: to look at, not to change."""
    return clone()


@pytest.fixture(scope="session")
def built(clone):
    """The tiny study, built from nothing: to look at, not to change."""
    project = clone()
    project.build()
    return project


@contextmanager
def copied(project: Project, root: Path) -> Iterator[Project]:
    """The project in another folder, for as long as it is needed."""
    shutil.copytree(project.root, root, symlinks=True)
    yield Project(root, project.env)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def copy(built, tmp_path):
    """The built study in another folder, to be changed."""
    with copied(built, tmp_path / "copy") as project:
        yield project


@pytest.fixture(scope="module")
def another(built, tmp_path_factory):
    """The built study in another folder, to be changed by the tests of one file."""
    with copied(built, tmp_path_factory.mktemp("another") / "copy") as project:
        yield project


@pytest.fixture(scope="session")
def ahead(built, tmp_path_factory):
    """``ahead(change)`` sets off a dry run of a changed copy on a second core, whose ``result()`` is its plan."""
    pool = ThreadPoolExecutor(2)

    def plan(change: Callable[[Project], object]) -> set[str]:
        with copied(built, tmp_path_factory.mktemp("ahead") / "copy") as project:
            change(project)
            return project.plan()

    def start(change: Callable[[Project], object]) -> Future[set[str]]:
        return pool.submit(plan, change)

    yield start
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def killed(clone):
    """The tiny study, killed in the midst of training with all its jobs, and after which task each was; not yet built again."""
    project = clone()
    command, told = [sys.executable, "-m", "snakemake", "--cores", "2", "--rerun-incomplete"], project.root / "killed.out"
    left: dict[str, int] = {}
    while not left:  # a job may have come to its end before it was killed: then another one is
        with told.open("w") as out:
            running = subprocess.Popen(command, cwd=project.root, env=project.env, stdout=out, stderr=out, start_new_session=True)
        limit = time.monotonic() + 120
        while not any(project.results.glob("runs/*/*/*/resume/state_0.npz")):
            assert running.poll() is None, told.read_text()
            assert time.monotonic() < limit, told.read_text()
            time.sleep(0.001)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        project.build("--unlock")
        for state in project.results.glob("runs/*/*/*/resume/state_0.npz"):
            left[str(state.parents[1].relative_to(project.results))] = int(np.load(state)["task"])
    return project, left


@pytest.fixture(scope="session")
def again(killed):
    """The tiny study from nothing once more, in another folder, though it was killed while it trained."""
    project, _ = killed
    project.build("--rerun-incomplete")
    return project
