"""Projects that run on a cluster with the shipped profile, whose launchers ask Slurm more often."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cluster as lab

POLLING = Path(__file__).with_name("polling")
# shorter waits than in the profile
SHORT_WAITS = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
PATIENCE = 900  # seconds that anything may take


@dataclass
class Project:
    """A copy of the repository whose default study is a tiny one.

    Attributes:
        root: of the copy.
        cluster: on which it runs.
        forked: environment that forks Python commands from a server.
        launched: all launchers, so that the fixture can end them.
    """

    root: Path
    cluster: lab.Cluster
    forked: dict[str, str]
    launched: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def launcher_output(self) -> str:
        """Output of the last launcher."""
        return (self.root / "launched.out").read_text()

    @property
    def env(self) -> dict[str, str]:
        """Environment of commands, without settings of the site, which come from its file."""
        env = {
            key: value
            for key, value in self.cluster.env.items()
            if not key.startswith(("PLASTICITY_", "SLURM_JOB"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        return env | {"PATH": path, "PYTHONPATH": str(POLLING)}

    def run(
        self, *command: str | Path, timeout: float = PATIENCE, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, with its stderr in its stdout."""
        return subprocess.run(
            list(map(str, command)),
            cwd=self.root,
            env=env or self.env,
            timeout=timeout,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def local(self, *targets: str) -> None:
        """Run Snakemake without the cluster, and check that it succeeds."""
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
        """Run Snakemake on the cluster."""
        return self.run(
            sys.executable,
            "-m",
            "snakemake",
            "--profile",
            "slurm",
            *SHORT_WAITS,
            *targets,
            timeout=timeout,
        )

    def build(self, *targets: str) -> str:
        """Run Snakemake on the cluster, check that it succeeds, and return its output."""
        done = self.snakemake(*targets)
        assert done.returncode == 0, done.stdout[-8000:]
        assert not self.jobs(), "all jobs have ended"
        return done.stdout

    def jobs(self) -> list[lab.Job]:
        """Return the queued and running jobs of the project."""
        return [job for job in self.cluster.jobs() if job.folder == str(self.root)]

    def launch(self, *targets: str) -> subprocess.Popen[str]:
        """Start Snakemake on the cluster in the background, in its own session."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *SHORT_WAITS, *targets]
        with (self.root / "launched.out").open("w") as out:
            launcher = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.env,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self.launched.append(launcher)
        return launcher


def lasting(results: Path) -> dict[str, str]:
    """Return the digests of the results that are the same on every machine, by path.

    The caches of cluster jobs and the table of costs are left out.
    """
    suffixes = {".nc", ".csv", ".svg", ".pdf", ".png"}
    digests = {}
    for path in sorted(results.rglob("*")):
        if path.suffix in suffixes and "kept" not in path.parts and path.stem != "cost":
            name = str(path.relative_to(results))
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
