"""What a Slurm site must be told, and which jobs of this folder still run there. Standard library and YAML only: the launcher asks."""

import getpass
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import yaml

from plasticity.errors import StudyError

PREFIX = "plasticity_"  # how the names of our jobs begin, as the profile says
FILE = "slurm/site.yaml"
VARIABLES = {
    "partition": "PLASTICITY_PARTITION",
    "account": "PLASTICITY_ACCOUNT",
    "cpu_partition": "PLASTICITY_CPU_PARTITION",
}
NEEDED = ("partition", "account")
SECONDS_TO_END = (
    60.0  # Slurm kills a cancelled job's processes after KillWait, 30 s unless a site changed it
)


class Job(NamedTuple):
    """A job that waits or runs: its number, its state, and what Snakemake says of it."""

    number: str
    state: str
    comment: str


def site(root: Path) -> dict[str, str]:
    """Partition, account and, if it is another, the partition of jobs without a GPU: from the environment, else from the site's file.

    Raises:
        StudyError: a file that is no mapping of these keys to names.
    """
    said: dict[str, str] = {}
    if (root / FILE).exists():
        try:
            said = yaml.safe_load((root / FILE).read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise StudyError(
                f"{FILE} is no YAML ({error}): write lines such as 'partition: gpu'"
            ) from error
        if (
            not isinstance(said, dict)
            or not set(said) <= set(VARIABLES)
            or not all(isinstance(name, str) for name in said.values())
        ):
            raise StudyError(f"{FILE} holds {said}: write {', '.join(VARIABLES)}, each with a name")
    return said | {key: os.environ[name] for key, name in VARIABLES.items() if os.environ.get(name)}


def resources(said: Mapping[str, str], gpu: bool) -> dict[str, str]:
    """Partition and account as Snakemake's resources of a job; what the site does not say is left out."""
    partition = said.get("partition") if gpu else said.get("cpu_partition", said.get("partition"))
    found = {"slurm_partition": partition, "slurm_account": said.get("account")}
    return {name: value for name, value in found.items() if value and value != "none"}


def missing(said: Mapping[str, str]) -> str:
    """A sentence on what a site must still say; empty if nothing is missing."""
    absent = [key for key in NEEDED if not said.get(key)]
    if not absent:
        return ""
    lines, variables = (
        " and ".join(f"'{key}: NAME'" for key in absent),
        " and ".join(f"{VARIABLES[key]}=NAME" for key in absent),
    )
    return (
        f"Slurm needs the site's {' and '.join(absent)}: write {lines} to {FILE}, or export {variables} ('sinfo -s' lists partitions, "
        "'sacctmgr show associations user=$USER' accounts; an account is 'none' where a site has none)"
    )


def running(root: Path) -> list[Job]:
    """Return our jobs that wait or run, submitted from this folder; none where there is no Slurm.

    A cancelled job's processes may live on for half a minute and delete its files (Slurm's state COMPLETING). So this waits
    for jobs in that state, but at most ``SECONDS_TO_END``: on a node that is lost, the state may last for days.

    Raises:
        StudyError: Slurm does not answer.
    """
    deadline = time.monotonic() + SECONDS_TO_END
    while True:
        jobs = _listed(root)
        ending = [job for job in jobs if job.state == "COMPLETING"]
        if not ending or time.monotonic() > deadline:
            return [job for job in jobs if job not in ending]
        time.sleep(0.5)


def _listed(root: Path) -> list[Job]:
    """Return the jobs of this folder that Slurm lists and that have not ended."""
    command = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%j|%T|%Z|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except FileNotFoundError:
        return []
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", "") or error
        raise StudyError(
            f"Slurm cannot be asked for jobs that still run here ({str(said).strip()}): try again when it answers"
        ) from error
    rows = [line.split("|", 4) for line in done.stdout.splitlines()]
    return [
        Job(number, state, comment)
        for number, name, state, folder, comment in (row for row in rows if len(row) == 5)
        if name.startswith(PREFIX)
        and state != "COMPLETED"
        and Path(folder).resolve() == root.resolve()
    ]


def see_every_end(plugin: ModuleType) -> None:
    """Have Snakemake's Slurm plugin see two ends of a job for which its version 2.8.0 waits without end.

    It leaves a preempted job to Slurm, to be started again, which the profile forbids (a retry would be a second writer): it has failed.
    And it thinks that a job runs which squeue has forgotten: it has ended, and whether it made its files is looked at.

    Args:
        plugin: the module ``snakemake_executor_plugin_slurm``.
    """
    ask: Callable[..., Awaitable[tuple[dict[str, str] | None, float | None]]] = (
        plugin.query_job_status
    )
    seen: set[str] = set()

    async def query_job_status(*arguments: object) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask(*arguments)
        if states is not None:
            seen.update(states)
            ends = {number: "FAILED" for number, state in states.items() if state == "PREEMPTED"}
            states = dict.fromkeys(seen, "UNKNOWN") | states | ends
        return states, seconds

    plugin.query_job_status = query_job_status  # type: ignore[attr-defined]


def refusal(jobs: Sequence[Job]) -> str:
    """Why nothing is started while jobs of a former start still run."""
    numbers = ", ".join(job.number for job in jobs[:10]) + ", …" * (len(jobs) > 10)
    return (
        f"{len(jobs)} Slurm jobs of this folder still run, of a start that goes on or was killed: {numbers}. Wait until they end, and "
        "start again: what they finish is kept. Or cancel them: make orphans ARGS=--cancel"
    )


def cancel(jobs: Sequence[Job]) -> None:
    """Cancel jobs.

    Raises:
        StudyError: Slurm refuses.
    """
    try:
        subprocess.run(
            ["scancel", *(job.number for job in jobs)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise StudyError(
            f"Slurm did not cancel ({getattr(error, 'stderr', '') or error})"
        ) from error
