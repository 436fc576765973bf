"""Copies of the repository in which Snakemake runs, and the fork server that starts their Python commands."""

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
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(
            list(map(str, command)),
            cwd=self.root,
            env=env,
            check=False,
            timeout=timeout,
            **output,
            **options,
        )

    @property
    def unforked(self) -> "Project":
        """The same project, whose Python commands are new interpreters: to kill them, or to look at all that they import."""
        _, *path = self.env["PATH"].split(os.pathsep)
        return replace(self, env=self.env | {"PATH": os.pathsep.join(path)})

    def snakemake(self, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on two cores."""
        return self.run("python", "-m", "snakemake", "--cores", "2", *options, **more)

    def build(self, *options: str, **more: Any) -> None:
        """Run Snakemake, and fail the test with the failed jobs and the ends of their logs if Snakemake fails."""
        done = self.snakemake(*options, **more)
        if done.returncode:
            pytest.fail(why_it_failed(done.stdout), pytrace=False)

    def plan(self, *options: str, **more: Any) -> set[str]:
        """The jobs that snakemake would run: a rule's name and its wildcards, such as ``train_ensemble digits_labels_relu/l2/0``."""
        done = self.snakemake("--dry-run", *options, **more)
        if done.returncode:
            pytest.fail(why_it_failed(done.stdout), pytrace=False)
        jobs = set()
        for rule, body in re.findall(
            r"^(?:local)?rule (\w+):\n((?: {4}.*\n)*)", done.stdout, re.MULTILINE
        ):
            wildcards = re.search(r"^ {4}wildcards: (.*)$", body, re.MULTILINE)
            values = (
                [pair.partition("=")[2] for pair in wildcards[1].split(", ")] if wildcards else []
            )
            jobs.add(f"{rule} {'/'.join(values)}".strip())
        assert bool(jobs) != ("Nothing to be done" in done.stdout), done.stdout[-1000:]
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
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def lasting(self) -> dict[str, str]:
        """Digest of every result that must be the same wherever and whenever it is made."""
        kinds = {".nc", ".csv", ".svg", ".pdf", ".png"}
        return {
            name: digest
            for name, digest in self.contents().items()
            if Path(name).suffix in kinds and Path(name).stem != "cost"
        }

    def append(self, path: str, text: str) -> None:
        """Add lines to a file of the project."""
        with (self.root / path).open("a") as file:
            file.write(text)


def why_it_failed(output: str) -> str:
    """Return the end of Snakemake's output: the failed jobs with the ends of their logs, or its last lines if no job failed."""
    report = re.search(r"^\w+( \S+)* failed\. .* ends:$", output, re.MULTILINE)
    return output[report.start() :][:4000] if report else "\n".join(output.splitlines()[-15:])


@contextmanager
def fork_server(folder: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Start a fork server; return the environment of commands whose `python` is forked by it."""
    address = folder / "socket"
    wrapper = folder / "bin" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {FORKED_PYTHON} "$@"\n')
    wrapper.chmod(0o755)
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, FORK_SERVER, address], env=env | threads, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 120
    while not address.exists():
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
    try:
        yield env | {
            "PATH": f"{wrapper.parent}{os.pathsep}{env['PATH']}",
            "FORK_SERVER": str(address),
        }
    finally:
        server.terminate()
        server.wait()


def repository_files(root: Path = ROOT) -> list[Path]:
    """List the files of the repository as they are now, but for those that git ignores and published results, relative to its folder."""
    listing = ["git", "ls-files", "-coz", "--exclude-standard", "--", ":!docs/*/**"]
    listed = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def copy_repository(root: Path) -> None:
    """Copy the files of the repository, without published results, and make the tiny study its default one."""
    for name in repository_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    shutil.copy(STUDY, root / "config.yaml")


def pack(config: dict[str, Any]) -> None:
    """Make a study of one setting with both seeds in each job, and with an arm that diverges next to one that does not."""
    config["seeds_per_job"] = 2
    del config["settings"]["digits_labels_tanh"]
    config["methods"]["l2_init"]["strength"] = [0.001, 1.0e39]


@contextmanager
def copied(project: Project, root: Path) -> Iterator[Project]:
    """The project in another folder, for as long as it is needed."""
    subprocess.run(
        ["cp", "-a", project.root, root], check=True
    )  # a third of the time that shutil.copytree takes
    yield replace(project, root=root)
    shutil.rmtree(root, ignore_errors=True)


def kill_in_training(project: Project) -> dict[str, int]:
    """Kill Snakemake and its jobs as soon as a training job has finished a task; return the last finished task of each such job."""
    command, output = (
        ["python", "-m", "snakemake", "--cores", "2", "--rerun-incomplete"],
        project.root / "killed.out",
    )
    left: dict[str, int] = {}
    while not left:  # if a job ended before it was killed, kill the next one
        with output.open("w") as out:
            running = subprocess.Popen(
                command,
                cwd=project.root,
                env=project.env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        limit = time.monotonic() + 120
        while not any(project.results.glob("runs/*/*/*/resume/state_0.npz")):
            assert running.poll() is None, output.read_text()
            assert time.monotonic() < limit, output.read_text()
            time.sleep(0.001)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        project.build("--unlock")
        for state in project.results.glob("runs/*/*/*/resume/state_0.npz"):
            left[str(state.parents[1].relative_to(project.results))] = int(np.load(state)["task"])
    return left
