"""Projects that run on a cluster with the profile as shipped, but are polled sooner."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster as lab

POLLING = Path(__file__).with_name("polling")
SOON = [
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--latency-wait",
    "5",
]  # the profile waits longer, for real clusters
PATIENCE = 900  # seconds that anything may take


@dataclass
class Project:
    """A copy of the repository whose default study is a tiny one.

    Attributes:
        root: of the copy.
        cluster: that it runs on.
        forked: environment in which Python commands are forked.
        launched: every launcher, so that none outlives its test.
    """

    root: Path
    cluster: lab.Cluster
    forked: dict[str, str]
    launched: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def said(self) -> str:
        """What the last launcher said."""
        return (self.root / "launched.out").read_text()

    @property
    def env(self) -> dict[str, str]:
        """Environment of commands: our tools first, the site from its file, and Slurm asked often."""
        kept = {
            key: value
            for key, value in self.cluster.env.items()
            if not key.startswith(("PLASTICITY_", "SLURM_JOB"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | {"PATH": path, "PYTHONPATH": str(POLLING)}

    def run(
        self, *command: str | Path, timeout: float = PATIENCE, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command, whose stderr follows its stdout."""
        said: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }
        return subprocess.run(
            list(map(str, command)),
            cwd=self.root,
            env=env or self.env,
            timeout=timeout,
            check=False,
            **said,
        )

    def local(self, *targets: str) -> None:
        """Run Snakemake without the cluster, which must succeed."""
        wrapper = self.forked["PATH"].partition(os.pathsep)[0]
        env = self.env | {name: self.forked[name] for name in ("FORK_SERVER", "NOTED_IMPORTS")}
        env["PATH"] = f"{wrapper}{os.pathsep}{env['PATH']}"
        done = self.run(
            "python", "-m", "snakemake", "--cores", "2", "--rerun-incomplete", *targets, env=env
        )
        assert done.returncode == 0, done.stdout[-5000:]

    def snakemake(
        self, *targets: str, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Snakemake on the cluster."""
        return self.run(
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "slurm",
            *SOON,
            *targets,
            timeout=timeout,
        )

    def build(self, *targets: str) -> str:
        """Snakemake on the cluster, which must succeed; what it says."""
        done = self.snakemake(*targets)
        assert done.returncode == 0, done.stdout[-8000:]
        assert not self.jobs(), "no job is left behind"
        return done.stdout

    def jobs(self) -> list[lab.Job]:
        """Its jobs that wait or run."""
        return [job for job in self.cluster.jobs() if job.folder == str(self.root)]

    def launch(self, *targets: str) -> subprocess.Popen[str]:
        """Snakemake on the cluster, in the background, in a session of its own."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *SOON, *targets]
        with (self.root / "launched.out").open("w") as out:
            running = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.env,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self.launched.append(running)
        return running


def lasting(results: Path) -> dict[str, str]:
    """Digest of every result that is the same wherever it is made, by its path; the links that the cluster's jobs keep are left out."""
    kinds = {".nc", ".csv", ".svg", ".pdf", ".png"}
    found = [
        path
        for path in sorted(results.rglob("*"))
        if path.suffix in kinds and "kept" not in path.parts and path.stem != "cost"
    ]
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }
