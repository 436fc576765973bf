"""Copies of the repository in which Snakemake runs, and a fork server for their commands."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "tests/workflow/study.yaml"
FORK_SERVER = Path(__file__).with_name("fork_server.py")
FORKED_PYTHON = Path(__file__).with_name("forked_python.py")
# the variable of `plasticity.fork_server`, which is not imported: the rule `check` loads this file
FORK_SERVER_OF_WORKFLOW = "PLASTICITY_FORK_SERVER"
REPRODUCIBLE_SUFFIXES = {".nc", ".csv", ".svg", ".pdf", ".png"}
RESTART_STATES = "runs/*/*/*/resume/state_0.npz"  # relative to the results


@dataclass
class Project:
    """A copy of the repository in which Snakemake can run.

    Attributes:
        root: of the copy.
        env: environment of its commands.
    """

    root: Path
    env: dict[str, str]

    @property
    def results(self) -> Path:
        """Folder with the results of the tiny study."""
        return self.root / "results" / "tiny"

    def run(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        timeout: float = 900,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with its stderr in its stdout.

        Args:
            command: program and arguments.
            env: variables in addition to those of the project.
            timeout: in seconds.
            options: of `subprocess.run`.
        """
        return subprocess.run(
            list(map(str, command)),
            cwd=self.root,
            env=self.env | (env or {}),
            check=False,
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    @property
    def unforked(self) -> "Project":
        """The same project as users have it, for tests of kills and imports.

        `python` is a new interpreter, and Snakemake starts the fork server of the workflow.
        """
        _, *path = self.env["PATH"].split(os.pathsep)
        env = self.env | {"PATH": os.pathsep.join(path)}
        del env[FORK_SERVER_OF_WORKFLOW]
        return replace(self, env=env)

    def snakemake(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on two cores."""
        return self.run("python", "-m", "snakemake", "--cores", "2", *options, **more)

    def start(self, *command: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, which can be killed with its children.

        Args:
            command: program and arguments.
            log: file for its output.
        """
        with log.open("w") as output:
            return subprocess.Popen(
                list(map(str, command)),
                cwd=self.root,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def start_snakemake(self, *options: str, log: Path) -> subprocess.Popen[bytes]:
        """Start Snakemake as `start` does."""
        return self.start("python", "-m", "snakemake", *options, log=log)

    def build(self, *options: str, **more: Any) -> None:
        """Run Snakemake. If it fails, fail the test with the failed jobs and the end of logs."""
        done = self.snakemake(*options, **more)
        if done.returncode:
            pytest.fail(failure_summary(done.stdout), pytrace=False)

    def plan(self, *options: str, **more: Any) -> set[str]:
        """List the jobs that Snakemake would run.

        Returns:
            Rule and wildcards of each job, such as `train_ensemble digits_labels_relu/l2/0`.
        """
        done = self.snakemake("--dry-run", *options, **more)
        if done.returncode:
            pytest.fail(failure_summary(done.stdout), pytrace=False)
        jobs = planned_jobs(done.stdout)
        is_complete = "Nothing to be done" in done.stdout
        assert is_complete != bool(jobs), done.stdout[-1000:]
        return jobs

    def config(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Apply a function to the config of the project, which it changes in place."""
        path = self.root / "config.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def digests(self, folder: str = "results/tiny") -> dict[str, str]:
        """Return the digest of every file in a folder, by its path relative to the folder."""
        root = self.root / folder
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def reproducible_digests(self) -> dict[str, str]:
        """Return the digest of every result that does not depend on where or when it is computed.

        The cost estimate is left out, since it depends on the machine.
        """
        return {
            name: digest
            for name, digest in self.digests().items()
            if Path(name).suffix in REPRODUCIBLE_SUFFIXES and Path(name).stem != "cost"
        }

    def append(self, path: str, text: str) -> None:
        """Append text to a file of the project."""
        with (self.root / path).open("a") as file:
            file.write(text)


def planned_jobs(output: str) -> set[str]:
    """Parse the output of a dry run into rule and wildcards of each job."""
    pattern = r"^(?:local)?rule (\w+):\n((?: {4}.*\n)*)"
    jobs = set()
    for rule, body in re.findall(pattern, output, re.MULTILINE):
        wildcards = re.search(r"^ {4}wildcards: (.*)$", body, re.MULTILINE)
        pairs = wildcards[1].split(", ") if wildcards else []
        values = "/".join(pair.partition("=")[2] for pair in pairs)
        jobs.add(f"{rule} {values}".strip())
    return jobs


def failure_summary(output: str) -> str:
    """Return the failed jobs and the ends of their logs from the output of Snakemake.

    If no job failed, return the last lines of the output.
    """
    report = re.search(r"^\w+( \S+)* failed(\. .* ends:|, and has no log.*)$", output, re.MULTILINE)
    if report:
        return output[report.start() :][:4000]
    return "\n".join(output.splitlines()[-15:])


def wait_for(
    condition: Callable[[], bool],
    process: subprocess.Popen[Any],
    log: Path | None = None,
    pause: float = 0.01,
) -> None:
    """Wait until a condition holds, for at most ten minutes.

    Args:
        condition: is called again after each pause.
        process: must not end before the condition holds.
        log: file of the process, for the message of an error.
        pause: in seconds.
    """
    deadline = time.monotonic() + 600  # only a hang takes longer, even on a busy machine
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            end = "is too slow" if process.poll() is None else "ended"
            raise AssertionError(f"the process {end}: {log.read_text() if log else ''}")
        time.sleep(pause)


@contextmanager
def fork_server(folder: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a fork server.

    Args:
        folder: for the files of the server.
        env: environment of the server.

    Yields:
        The same environment, but the server forks `python`.
    """
    address = folder / "socket"
    log_path = folder / "log"
    wrapper = folder / "bin" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {FORKED_PYTHON} "$@"\n')
    wrapper.chmod(0o755)
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, FORK_SERVER, address]
    with log_path.open("w") as log:
        server = subprocess.Popen(command, env=env | threads, stdout=log, stderr=log)
    wait_for(address.exists, server, log_path, pause=0.05)
    try:
        path = f"{wrapper.parent}{os.pathsep}{env['PATH']}"
        # the workflow starts no server of its own: it would import the same packages once more
        yield env | {"PATH": path, "FORK_SERVER": str(address), FORK_SERVER_OF_WORKFLOW: ""}
    finally:
        server.terminate()
        server.wait()


def repository_files(root: Path = ROOT) -> list[Path]:
    """List the present files of a repository, without ignored files and published results.

    Returns:
        Paths relative to the repository.
    """
    command = ["git", "ls-files", "-coz", "--exclude-standard", "--", ":!docs/*/**"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    names = filter(None, listing.stdout.split("\0"))
    return [Path(name) for name in names if (root / name).is_file()]


def copy_files(source: Path, root: Path) -> None:
    """Copy the files of a repository, without ignored files and published results."""
    for name in repository_files(source):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, root / name)


def copy_repository(root: Path) -> None:
    """Copy the repository, and make the tiny study the default one of the copy."""
    copy_files(ROOT, root)
    shutil.copy(STUDY, root / "config.yaml")


def use_packed_study(config: dict[str, Any]) -> None:
    """Change the tiny study to one setting, two seeds per job, and one more arm that diverges."""
    config["seeds_per_job"] = 2
    del config["settings"]["digits_labels_tanh"]
    config["methods"]["l2_init"]["strength"] = [0.001, 1.0e39]


@contextmanager
def copy_project(project: Project, root: Path) -> Iterator[Project]:
    """Yield a copy of a project, and delete it at the end."""
    # three times as fast as shutil.copytree
    subprocess.run(["cp", "-a", project.root, root], check=True)
    yield replace(project, root=root)
    shutil.rmtree(root, ignore_errors=True)


def kill_in_training(project: Project) -> dict[str, int]:
    """Kill Snakemake and its jobs when a training job has finished a task.

    Returns:
        The last finished task of each interrupted job, by its folder in the results.
    """
    last_tasks: dict[str, int] = {}
    while not last_tasks:  # if the job ended before it was killed, kill the next one
        kill_after_a_task(project)
        project.build("--unlock")
        for state in project.results.glob(RESTART_STATES):
            folder = state.parents[1].relative_to(project.results)
            last_tasks[str(folder)] = int(np.load(state)["task"])
    return last_tasks


def kill_after_a_task(project: Project) -> None:
    """Start Snakemake, and kill it and its jobs when there is restart state of a finished task."""
    log = project.root / "killed.out"
    launcher = project.start_snakemake("--cores", "2", "--rerun-incomplete", log=log)
    wait_for(lambda: any(project.results.glob(RESTART_STATES)), launcher, log, pause=0.001)
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
