"""Measure what a whole study survives: kills, altered files, little memory, a poor file system.

    PYTHONPATH=tests:workflow/scripts python tests/reliability.py kills --count 100
    PYTHONPATH=tests:workflow/scripts python tests/reliability.py alterations
    PYTHONPATH=tests:workflow/scripts python tests/reliability.py edit
    PYTHONPATH=tests:workflow/scripts python tests/reliability.py memory  # needs root and cgroups
    PYTHONPATH=tests:workflow/scripts python tests/reliability.py file_system

Each builds the tiny study in a copy of the repository and compares every byte with a study that
nothing disturbed. Times are for two cores: kills take half a minute each, the others minutes.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from projects import Project, copy_repository, wait_for

from plasticity.provenance import audit

RUN = ("python", "workflow/scripts/run.py")
AUDIT = ("python", "workflow/scripts/audit.py")
LONGEST_SECONDS = 25.0  # before a kill
TASKS = 60  # so that a good part of the time is training
RELU = "digits_labels_relu"
# How folders of files begin that are no results of the study as it is now.
NO_RESULTS = (*audit.INTERNAL_FOLDERS, audit.ASIDE)

# Python reads this before a job: links and locks fail as on some network file systems.
NO_LINKS_AND_LOCKS = """
import errno, fcntl, os

def fail(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))
    return call

os.link = fail(errno.EPERM)
fcntl.flock = fcntl.lockf = fail(errno.ENOLCK)
"""


def new_project(root: Path, name: str) -> Project:
    """Copy the repository, with the tiny study and more tasks."""
    project = Project(root / name, dict(os.environ))
    copy_repository(project.root)

    def lengthen(config: dict[str, dict[str, dict[str, dict[str, int]]]]) -> None:
        for setting in config["settings"].values():
            setting["problem"]["tasks"] = TASKS

    project.config(lengthen)
    return project


def build(project: Project, *options: str, **more: dict[str, str]) -> None:
    """Run a study to its end, or stop with its output."""
    done = project.run(*RUN, *options, **more)
    if done.returncode:
        sys.exit(done.stdout)


def results_of(project: Project) -> dict[str, str]:
    """Return the digest of every result that must be equal, without what jobs keep for restarts."""
    return {
        name: digest
        for name, digest in project.reproducible_digests().items()
        if not any(part.startswith(NO_RESULTS) for part in Path(name).parts)
    }


def check_equal(project: Project, reference: dict[str, str], what: str) -> None:
    """Compare the results of a study with a reference; stop with the names of files that differ."""
    results = results_of(project)
    names = results.keys() | reference.keys()
    different = sorted(name for name in names if results.get(name) != reference.get(name))
    if different:
        sys.exit(f"{what}: {len(different)} files differ: {', '.join(different[:9])}")


# Kills


def kills(root: Path, reference: dict[str, str], count: int) -> None:
    """Kill launchers and jobs at random moments, until each study is finished.

    A study is finished when `make run` says so; it is then compared and another one is started.
    """
    draw = random.Random(0)
    outcomes: Counter[str] = Counter()
    done, study = 0, 0
    while done < count:
        project = new_project(root, f"kills_{study}")
        is_finished = False
        while not is_finished and done < count:
            target = draw.choice(["launcher", "job", "both"])
            outcome = run_until_kill(project, target, draw.uniform(0, LONGEST_SECONDS))
            is_finished = outcome == "finished"
            if not is_finished:
                done += 1
            outcomes[outcome] += 1
            print(f"{done} kills: {outcome}", flush=True)
        finish(project)
        check_equal(project, reference, f"study {study}")
        outcomes["studies equal to the undisturbed one"] += 1
        study += 1
        shutil.rmtree(project.root)
        print(f"{done} kills, study {study} is equal: {dict(outcomes)}", flush=True)


def run_until_kill(project: Project, target: str, seconds: float) -> str:
    """Run a study, and kill its launcher, one of its jobs or both after some time.

    Returns:
        ``finished``, or what was killed and how the launcher ended.
    """
    log = project.root / "run.out"
    launcher = project.start(*RUN, log=log)
    try:
        status = launcher.wait(seconds)
    except subprocess.TimeoutExpired:
        return kill(launcher, target)
    if status == 0:
        return "finished"
    text = log.read_text()
    # a job of a killed launcher still works on this ensemble
    assert "is being worked on by" in text or "finished by another process" in text, text
    return "waited for a job of a killed launcher"


def kill(launcher: subprocess.Popen[bytes], target: str) -> str:
    """Kill a launcher, one of its jobs, or all."""
    processes = psutil.Process(launcher.pid).children(recursive=True)
    jobs = [process for process in processes if "--log" in _command(process)]
    if target == "both":
        os.killpg(launcher.pid, signal.SIGKILL)
    elif target == "job" and jobs:
        random.Random(launcher.pid).choice(jobs).kill()
    else:
        target = "launcher"
        launcher.kill()
    launcher.wait()
    return f"{target} killed"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.name().startswith("python") else []
    except psutil.Error:
        return []


def finish(project: Project) -> None:
    """Run a study to its end, however often it must wait for jobs of killed launchers."""
    for _ in range(100):
        done = project.run(*RUN)
        if done.returncode == 0:
            return
        assert "worked on by" in done.stdout or "another process" in done.stdout, done.stdout
    sys.exit("the study does not end")


# Alterations


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def append_a_zero(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def keep_times(alter: Callable[[Path], None]) -> Callable[[Path], None]:
    """Alter a file, and give it its former time of modification."""

    def altered(path: Path) -> None:
        before = path.stat()
        alter(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return altered


def change_a_digit(path: Path) -> None:
    text = path.read_text()
    position = re.search(r"\d(?=\D*$)", text)
    assert position
    digit = str((int(position[0]) + 1) % 10)
    path.write_text(text[: position.start()] + digit + text[position.end() :])


def swap_two_lines(path: Path) -> None:
    first, second, third, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, third, second, *others]))


def replace_by(other: str) -> Callable[[Path], None]:
    """Replace a file by another one of the study."""

    def replace(path: Path) -> None:
        results = next(parent for parent in path.parents if parent.name == "tiny")
        shutil.copy(results / other, path)

    return replace


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to("/dev/null")


RUN_FOLDER = f"runs/{RELU}/none/0"
Alteration = tuple[str, Callable[[Path], None]]  # a result, and what is done to it
ALTERATIONS: dict[str, Alteration] = {
    "a bit of the prepared data": ("data/digits.nc", flip_a_bit),
    "a bit of outcomes": (f"{RUN_FOLDER}/outcomes.nc", flip_a_bit),
    "a bit of outcomes, with the old time": (f"{RUN_FOLDER}/outcomes.nc", keep_times(flip_a_bit)),
    "a bit of checkpoints": (f"{RUN_FOLDER}/checkpoints.nc", flip_a_bit),
    "truncated checkpoints": (f"{RUN_FOLDER}/checkpoints.nc", truncate),
    "a bit of measures": (f"{RUN_FOLDER}/measures.nc", flip_a_bit),
    "empty measures": (f"{RUN_FOLDER}/measures.nc", empty),
    "outcomes of another run": (
        f"{RUN_FOLDER}/outcomes.nc",
        replace_by(f"runs/{RELU}/none/1/outcomes.nc"),
    ),
    "a dataset with a byte more": (f"datasets/{RELU}.nc", append_a_zero),
    "the dataset of another setting": (
        f"datasets/{RELU}.nc",
        replace_by("datasets/digits_labels_tanh.nc"),
    ),
    "a digit of a table": ("tables/summary.csv", change_a_digit),
    "a digit of a table, with the old time": ("tables/outcomes.csv", keep_times(change_a_digit)),
    "two lines of a table": ("tables/comparisons.csv", swap_two_lines),
    "an empty table": ("tables/tuning.csv", empty),
    "a digit of a table in LaTeX": ("tables/methods.tex", change_a_digit),
    "another figure": ("figures/scatter.png", replace_by("figures/timing.png")),
    "a truncated figure": ("figures/layers.pdf", truncate),
    "a digit of a figure": ("figures/curvature.svg", change_a_digit),
    "a folder in place of a figure": ("figures/operators.png", replace_by_a_folder),
    "a link in place of a figure": ("figures/overlap.png", replace_by_a_link),
    "the verdict of the checks": ("checks.txt", append_a_zero),
    "a page of the report": ("tables/methods.html", change_a_digit),
}


def rounds() -> list[dict[str, Alteration]]:
    """Divide the alterations into rounds, each with at most one alteration of a file."""
    divided: list[dict[str, Alteration]] = []
    altered_before: Counter[str] = Counter()
    for name, (file, alter) in ALTERATIONS.items():
        number = altered_before[file]
        if number == len(divided):
            divided.append({})
        divided[number][name] = (file, alter)
        altered_before[file] += 1
    return divided


def alterations(root: Path, reference: dict[str, str]) -> None:
    """Alter files of a finished study: audit must name each, and two commands must repair all."""
    project = new_project(root, "alterations")
    build(project)
    for altered in rounds():
        for file, alter in altered.values():
            alter(project.results / file)
        done = project.run(*AUDIT)
        assert done.returncode == 1, done.stdout
        for name, (file, _) in altered.items():
            # Not only that an input has changed, which may be true of it as well.
            fault = rf"/{re.escape(file)}: (its checksum differs|is not a file)"
            assert re.search(fault, done.stdout), f"{name}: audit says {done.stdout}"
        for path in project.results.rglob("*.away"):
            path.unlink()
        repaired = project.run(*AUDIT, "--repair")
        assert repaired.returncode == 0, repaired.stdout
        build(project)
        assert project.run(*AUDIT).returncode == 0
        check_equal(project, reference, ", ".join(altered))
        print(f"found and repaired: {', '.join(altered)}", flush=True)


# Edits


def edit(root: Path, reference: dict[str, str]) -> None:
    """Edit the config while jobs run: first the old study is finished, then the new one."""

    def strengthen(config: dict[str, dict[str, dict[str, float]]]) -> None:
        config["methods"]["l2_init"]["strength"] = 0.002

    project = new_project(root, "edit")
    launcher = project.start(*RUN, log=project.root / "run.out")
    wait_for(lambda: any(project.results.glob("runs/*/*/*/outcomes.nc")), launcher)
    project.config(strengthen)
    assert launcher.wait() == 0
    check_equal(project, reference, "the edited study")
    print("the edit did not disturb the study that ran", flush=True)

    build(project)
    expected = new_project(root, "edited_before")
    expected.config(strengthen)
    build(expected)
    check_equal(project, results_of(expected), "the next study")
    print("the next run equals a study that was edited before")


# Surroundings


def memory(root: Path, reference: dict[str, str], gibibytes: float = 2) -> None:
    """Build the study in a control group with little memory."""
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup") / ("" if version_2 else "memory") / f"reliability_{os.getpid()}"
    limit, peak = (
        ("memory.max", "memory.peak")
        if version_2
        else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
    )
    group.mkdir()
    (group / limit).write_text(str(int(gibibytes * 2**30)))
    project = new_project(root, "memory")

    def join() -> None:
        (group / "cgroup.procs").write_text("0")

    done = project.run(*RUN, preexec_fn=join)
    used = int((group / peak).read_text()) / 2**30
    group.rmdir()
    assert done.returncode == 0, done.stdout
    check_equal(project, reference, "the study with little memory")
    print(f"equal within {gibibytes} GiB; at most {used:.2f} GiB were used")


def file_system(root: Path, reference: dict[str, str]) -> None:
    """Build the study on a file system without hard links and locks."""
    patched = root / "patched"
    patched.mkdir()
    (patched / "sitecustomize.py").write_text(NO_LINKS_AND_LOCKS)
    project = new_project(root, "file_system")
    build(project, env={"PYTHONPATH": str(patched), "SLURM_JOB_ID": "7"})  # so that it would link
    check_equal(project, reference, "the study without links and locks")
    logs = "".join(path.read_text() for path in project.results.rglob("*.log"))
    for warning in ("cannot be locked", "cannot be cached"):
        assert warning in logs, f"no log says {warning!r}"
    print("equal without links and locks, and the logs say so")


MEASUREMENTS = {
    "alterations": alterations,
    "edit": edit,
    "memory": memory,
    "file_system": file_system,
}


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["kills", *MEASUREMENTS])
    parser.add_argument("--count", type=int, default=100, help="number of kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        undisturbed = new_project(root, "undisturbed")
        build(undisturbed)
        reference = results_of(undisturbed)
        if arguments.what == "kills":
            kills(root, reference, arguments.count)
        else:
            MEASUREMENTS[arguments.what](root, reference)


if __name__ == "__main__":
    main()
