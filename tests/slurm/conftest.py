"""A cluster for the tests of this folder, and projects that run on it with the profile as shipped, which are polled sooner."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import cluster as lab

ROOT = Path(__file__).resolve().parents[2]
SOON = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]  # the profile waits longer, for real clusters
PATIENCE = 240  # seconds that anything may take


@dataclass
class Project:
    """A copy of the repository whose default study is a tiny one.

    Attributes:
        root: of the copy.
        cluster: that it runs on.
        launched: every launcher, so that none outlives its test.
    """

    root: Path
    cluster: lab.Cluster
    launched: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The environment's tools first, and no site but that of the file."""
        kept = {key: value for key, value in self.cluster.env.items() if not key.startswith(("PLASTICITY_", "SLURM_JOB"))}
        return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}

    def run(self, *command: str | Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """A command, whose stderr follows its stdout."""
        said: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(list(map(str, command)), cwd=self.root, env=self.env, timeout=timeout, check=False, **said)

    def local(self, *targets: str) -> None:
        """Snakemake without the cluster, which must succeed."""
        done = self.run(sys.executable, "-m", "snakemake", "--cores", "2", *targets)
        assert done.returncode == 0, done.stdout[-5000:]

    def snakemake(self, *targets: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Snakemake on the cluster."""
        return self.run(sys.executable, "-m", "snakemake", "--profile", "slurm", *SOON, *targets, timeout=timeout)

    def build(self, *targets: str) -> str:
        """Snakemake on the cluster, which must succeed; what it says."""
        done = self.snakemake(*targets)
        assert done.returncode == 0, done.stdout[-8000:]
        assert not self.cluster.jobs(), "no job is left behind"
        return done.stdout

    def launch(self, *targets: str) -> subprocess.Popen[str]:
        """Snakemake on the cluster, in the background, in a session of its own."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *SOON, *targets]
        with (self.root / "launched.out").open("w") as out:
            running = subprocess.Popen(command, cwd=self.root, env=self.env, stdout=out, stderr=out, text=True, start_new_session=True)
        self.launched.append(running)
        return running

    def contents(self, folder: str = "runs") -> dict[str, str]:
        """Digest of every result below a folder of the study, but for the links that the cluster's jobs keep."""
        root = self.root / "results/tiny" / folder
        files = [path for path in sorted(root.rglob("*.nc")) if "kept" not in path.parts]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def log(self, cohort: str, stage: str = "train") -> str:
        """The log of a cohort's jobs: of every attempt."""
        path = self.root / f"results/tiny/logs/runs/{cohort}/{stage}.log"
        return path.read_text() if path.exists() else ""


def wait(what: str, ready: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there can be no cluster, say so."""
    if reason := lab.missing():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A cluster without accounting, as many sites have it."""
    made = lab.Cluster(tmp_path_factory.mktemp("cluster"))
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="session")
def copied(tmp_path_factory, cluster):
    """``copied(change)``: a new project with the tiny study, its config changed."""
    made: list[Project] = []

    def make(change: Callable[[dict[str, Any]], object] = lambda config: None) -> Project:
        root = tmp_path_factory.mktemp("project")
        listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        config = yaml.safe_load((ROOT / "tests/workflow/study.yaml").read_text())
        config["settings"] = {"digits_labels_relu": config["settings"]["digits_labels_relu"]}
        config |= {"seeds_per_job": 2, "methods": {"none": {}}}
        change(config)
        (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (root / "slurm/site.yaml").write_text("partition: gpu\ncpu_partition: cpu\naccount: none\n")
        made.append(Project(root, cluster))
        return made[-1]

    yield make
    for project in made:
        for running in project.launched:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        shutil.rmtree(project.root, ignore_errors=True)
