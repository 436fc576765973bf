"""Projects that run on a cluster with the shipped profile. Their launchers query Slurm more often.

A launcher is a Snakemake process that submits jobs.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cluster as lab

from plasticity.storage import cache

POLLING = Path(__file__).with_name("polling")
# waits shorter than in the profile
SHORT_WAITS = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
TIMEOUT = 900  # seconds, of any command


@dataclass
class Project:
    """A copy of the repository whose default study is the tiny study.

    Attributes:
        root: folder of the copy.
        cluster: on which the project runs.
        fork_env: environment that forks Python commands from a server.
        launchers: all that were started, so that the fixture can end them.
    """

    root: Path
    cluster: lab.Cluster
    fork_env: dict[str, str]
    launchers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def launcher_output(self) -> str:
        """Output of the last launcher."""
        return (self.root / "launcher.out").read_text()

    @property
    def env(self) -> dict[str, str]:
        """Environment of commands, without variables that replace the site's settings file."""
        env = {
            key: value
            for key, value in self.cluster.env.items()
            if not key.startswith(("PLASTICITY_", "SLURM_JOB"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        return env | {"PATH": path, "PYTHONPATH": str(POLLING)}

    def run(
        self, *command: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, with its stderr in its stdout."""
        return subprocess.run(
            [str(argument) for argument in command],
            cwd=self.root,
            env=env or self.env,
            timeout=TIMEOUT,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build_without_cluster(self, *targets: str) -> None:
        """Run Snakemake without the cluster, and check that it succeeds."""
        wrapper_folder = self.fork_env["PATH"].partition(os.pathsep)[0]
        env = self.env
        env["PATH"] = f"{wrapper_folder}{os.pathsep}{env['PATH']}"
        for name in ("FORK_SERVER", "IMPORT_RECORDS"):
            env[name] = self.fork_env[name]
        options = ("--cores", "2", "--rerun-incomplete")
        done = self.run("python", "-m", "snakemake", *options, *targets, env=env)
        assert done.returncode == 0, done.stdout[-5000:]

    def snakemake(self, *targets: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on the cluster."""
        return self.run(*SNAKEMAKE, "--profile", "slurm", *SHORT_WAITS, *targets)

    def build(self, *targets: str) -> None:
        """Run Snakemake on the cluster, and check that it succeeds."""
        done = self.snakemake(*targets)
        assert done.returncode == 0, done.stdout[-8000:]
        assert not self.jobs(), "all jobs have ended"

    def jobs(self) -> list[lab.Job]:
        """Return the queued and running jobs of the project."""
        return [job for job in self.cluster.jobs() if job.folder == str(self.root)]

    def launch(self, *targets: str) -> subprocess.Popen[str]:
        """Start Snakemake on the cluster in the background, in its own session."""
        command = [*SNAKEMAKE, "--profile", "slurm", *SHORT_WAITS, *targets]
        with (self.root / "launcher.out").open("w") as out:
            launcher = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.env,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self.launchers.append(launcher)
        return launcher


def portable_digests(results: Path) -> dict[str, str]:
    """Return the digests of the results that are the same on every machine, by path.

    The caches of cluster jobs and the table of costs are not among them.
    """
    suffixes = {".nc", ".csv", ".svg", ".pdf", ".png"}
    digests = {}
    for path in sorted(results.rglob("*")):
        if path.suffix in suffixes and cache.FOLDER not in path.parts and path.stem != "cost":
            name = str(path.relative_to(results))
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests
