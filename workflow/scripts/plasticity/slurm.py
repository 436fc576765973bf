"""Slurm: the settings of a site, and the unfinished jobs of this folder.

Standard library and YAML only, because the launcher imports it.
"""

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

LOGS = Path(".snakemake", "slurm_logs")  # as slurm/profile.yaml says
PREFIX = "plasticity_"  # of the names of our jobs; slurm/profile.yaml sets it
FILE = "slurm/site.yaml"
VARIABLES = {
    "partition": "PLASTICITY_PARTITION",
    "account": "PLASTICITY_ACCOUNT",
    "cpu_partition": "PLASTICITY_CPU_PARTITION",
    "curvature": "PLASTICITY_CURVATURE",
}
DEVICES = ("cpu", "gpu")  # of curvature jobs
REQUIRED = ("partition", "account")
# Slurm kills the processes of a cancelled job after KillWait, 30 s unless a site changed it
SECONDS_TO_END = 60.0
SECONDS_TO_ANSWER = 60


class Job(NamedTuple):
    """A Slurm job that is queued or running.

    Attributes:
        number: Slurm's job id.
        state: as squeue prints it.
        comment: the rule and the wildcards, from Snakemake.
    """

    number: str
    state: str
    comment: str


def read_site(*folders: Path) -> dict[str, str]:
    """Read the partition and the account of the site, and which jobs get a GPU.

    Environment variables override the file `slurm/site.yaml`.

    Args:
        folders: that may have the file. Only the first file is read.

    Returns:
        The keys of `VARIABLES` that are set.

    Raises:
        StudyError: the file is not a mapping of these keys to names, or curvature is to run on an
            unknown device.
    """
    files = [folder / FILE for folder in folders if (folder / FILE).exists()]
    settings = _read_site_file(files[0]) if files else {}
    for key, variable in VARIABLES.items():
        if os.environ.get(variable):
            settings[key] = os.environ[variable]
    device = settings.get("curvature", DEVICES[0])
    if device not in DEVICES:
        raise StudyError(
            f"curvature is {device!r} in {FILE} or in {VARIABLES['curvature']}: write "
            f"{' or '.join(DEVICES)}"
        )
    return settings


def _read_site_file(path: Path) -> dict[str, str]:
    """Read the file of the site; it may be empty.

    Raises:
        StudyError: it is not a mapping of the known keys to names.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise StudyError(
            f"{FILE} is not valid YAML ({error}): write lines such as 'partition: gpu'"
        ) from error
    is_valid = (
        isinstance(settings, dict)
        and set(settings) <= set(VARIABLES)
        and all(isinstance(name, str) for name in settings.values())
    )
    if not is_valid:
        keys = ", ".join(VARIABLES)
        raise StudyError(f"{FILE} holds {settings}: write {keys}, each with a name")
    return dict(settings)


def resources(site: Mapping[str, str], gpu: bool) -> dict[str, str]:
    """Return the partition and the account of a job as Snakemake resources.

    Args:
        site: from `read_site`. What is not set, or ``"none"``, is left out.
        gpu: whether the job needs a GPU.
    """
    partition = site.get("partition")
    if not gpu:
        partition = site.get("cpu_partition", partition)
    values = {"slurm_partition": partition, "slurm_account": site.get("account")}
    return {name: value for name, value in values.items() if value and value != "none"}


def measures_on_gpu(site: Mapping[str, str]) -> bool:
    """Tell whether curvature jobs ask for a GPU; by default they do not."""
    return site.get("curvature") == "gpu"


def missing_settings_message(site: Mapping[str, str]) -> str:
    """Explain which settings of the site are missing; empty if none is."""
    missing = [key for key in REQUIRED if not site.get(key)]
    if not missing:
        return ""
    lines = " and ".join(f"'{key}: NAME'" for key in missing)
    variables = " and ".join(f"{VARIABLES[key]}=NAME" for key in missing)
    return (
        f"Slurm needs the site's {' and '.join(missing)}: write {lines} to {FILE}, or export "
        f"{variables}. 'sinfo -s' lists partitions, 'sacctmgr show associations user=$USER' lists "
        "accounts. If the site has no accounts, the account is 'none'."
    )


def unfinished_jobs(folder: Path) -> list[Job]:
    """List our jobs that are queued or running and were submitted from a folder.

    The processes of a cancelled job may run on for half a minute, in Slurm's state COMPLETING, and
    delete files. So this waits for jobs in that state, but at most ``SECONDS_TO_END``: on a node
    that is lost, the state may last for days.

    Args:
        folder: the working directory of Snakemake.

    Returns:
        Nothing where Slurm is not installed.

    Raises:
        StudyError: Slurm does not answer.
    """
    deadline = time.monotonic() + SECONDS_TO_END
    while True:
        jobs = _list_jobs(folder)
        ending = [job for job in jobs if job.state == "COMPLETING"]
        if not ending or time.monotonic() > deadline:
            return [job for job in jobs if job not in ending]
        time.sleep(0.5)


def _list_jobs(folder: Path) -> list[Job]:
    """List the jobs of a folder that squeue shows and that are not completed."""
    command = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%j|%T|%Z|%k"]
    try:
        output = _run(command)
    except FileNotFoundError:
        return []
    except (subprocess.SubprocessError, OSError) as error:
        raise StudyError(
            f"Slurm cannot be asked for jobs that still run here ({_reason(error)}): try again "
            "when it answers"
        ) from error
    jobs = []
    for line in output.splitlines():
        fields = line.split("|", 4)
        if len(fields) < 5:
            continue
        number, name, state, submitted_from, comment = fields
        is_ours = name.startswith(PREFIX) and Path(submitted_from).resolve() == folder.resolve()
        if is_ours and state != "COMPLETED":
            jobs.append(Job(number, state, comment))
    return jobs


def _run(command: Sequence[str]) -> str:
    """Return what a command of Slurm prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=True
    )
    return done.stdout


def _reason(error: Exception) -> str:
    """Return why a command of Slurm failed: what it printed, or else the exception."""
    return str(getattr(error, "stderr", "") or error).strip()


def log_of(rule: str, wildcards: Sequence[str]) -> Path | None:
    """Find what Slurm printed in the last attempt of a job; None if it never ran on Slurm."""
    folder = LOGS / f"rule_{rule}" / "_".join(wildcards).replace("/", "_")
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    return logs[-1] if logs else None


def recognize_every_end(plugin: ModuleType) -> None:
    """Patch Snakemake's Slurm plugin, whose version 2.8.0 never notices two ends of a job.

    - A preempted job: the plugin expects Slurm to requeue it. Our profile forbids that, because
      two processes would then write the same files. So the job has failed.
    - A job that squeue no longer lists: the plugin expects it to be running. It has ended, and
      Snakemake checks its files.

    Args:
        plugin: the module ``snakemake_executor_plugin_slurm``.
    """
    query: Callable[..., Awaitable[tuple[dict[str, str] | None, float | None]]] = (
        plugin.query_job_status
    )
    known: set[str] = set()

    async def query_job_status(*arguments: object) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await query(*arguments)
        if states is None:
            return states, seconds
        known.update(states)
        preempted = [number for number, state in states.items() if state == "PREEMPTED"]
        every_state = dict.fromkeys(known, "UNKNOWN") | states | dict.fromkeys(preempted, "FAILED")
        return every_state, seconds

    plugin.query_job_status = query_job_status  # type: ignore[attr-defined]


def unfinished_jobs_message(jobs: Sequence[Job]) -> str:
    """Explain why nothing starts while jobs of an earlier start are unfinished."""
    numbers = ", ".join(job.number for job in jobs[:10])
    if len(jobs) > 10:
        numbers += ", …"
    return (
        f"{len(jobs)} Slurm jobs of this folder still run, from a start that continues or was "
        f"killed: {numbers}. Wait until they end, then start again; their results are used. Or "
        "cancel them: make orphans ARGS=--cancel"
    )


def cancel(jobs: Sequence[Job]) -> None:
    """Cancel jobs.

    Raises:
        StudyError: Slurm refuses, or does not answer.
    """
    try:
        _run(["scancel", *(job.number for job in jobs)])
    except (subprocess.SubprocessError, OSError) as error:
        raise StudyError(f"Slurm did not cancel the jobs ({_reason(error)})") from error
