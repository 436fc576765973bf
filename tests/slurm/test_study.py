"""A study on a real Slurm, with the profile as shipped: what it makes, where its jobs run, and what happens when they come to grief."""

import os
import re
import signal
import sys

import pytest
import yaml
from conftest import wait

pytestmark = pytest.mark.slurm

SETTING = "digits_labels_relu"
TASKS = 20
TROUBLE = '''"""Notes each task that begins, sleeps as long as trouble/PAUSE says, and at task 5 does once what trouble/NAME is there for."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from plasticity.learner import Learner
from plasticity.methods import Intervention


@dataclass
class Method(Intervention):
    def switch(self, learner: Learner) -> None:
        with Path("trouble/NAME.begun").open("a") as begun:
            begun.write(f"{learner.task} {os.environ.get('SLURM_JOB_ID')} {os.environ.get('SLURMD_NODENAME')}\\n")
        trouble, pause = Path("trouble/NAME"), Path("trouble/PAUSE")
        if learner.task == 5 and trouble.exists():
            trouble.unlink()
            DEED
        if pause.exists():
            time.sleep(float(pause.read_text()))
'''
DEEDS = {
    "fails": "raise OSError('a disk that was gone for a moment')",
    "hangs": "time.sleep(600)",
    "grows": "[torch.ones(10**8).sum() for held in [[torch.ones(10**7) for _ in range(200)]]]; time.sleep(60)",
    "cancelled": "time.sleep(600)",
    "lost": "time.sleep(600)",
    "preempted": "time.sleep(600)",
    "slow": "pass",
}


def troubled(copied, *names, pause=None, deeds=True):
    """A project with a method for each trouble."""

    def change(config):
        config["settings"][SETTING]["problem"]["tasks"] = TASKS
        config["curvature"] |= {"every": 10}
        config["methods"] = {name: {} for name in names}

    project = copied(change)
    (project.root / "trouble").mkdir()
    if pause:
        (project.root / "trouble/PAUSE").write_text(str(pause))
    for name in names:
        text = TROUBLE.replace("DEED", DEEDS[name]).replace("NAME", name)
        (project.root / f"workflow/scripts/plasticity/methods/{name}.py").write_text(text)
        if deeds:
            (project.root / "trouble" / name).touch()
    return project


def cohort(method):
    return f"{SETTING}/{method}/0-1"


def begun(project, name):
    """The tasks that a cohort began, and the Slurm jobs that began them, in order."""
    path = project.root / f"trouble/{name}.begun"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [int(task) for task, *_ in rows], list(dict.fromkeys(job for _, job, _ in rows))


def of(project, *methods):
    """The results of some methods."""
    return {name: digest for name, digest in project.contents().items() if name.split("/")[1] in methods}


@pytest.fixture(scope="module")
def reference(copied):
    """Every trouble's method without its trouble, made without the cluster."""
    project = troubled(copied, *DEEDS, deeds=False)
    project.local("curvature")
    return project


def test_jobs_that_come_to_grief_are_sent_again_and_the_results_are_those_of_a_quiet_run(copied, reference, cluster):
    """At once, since each waits most of its time: one fails, hangs until its time is over, wants memory, is cancelled, loses its node."""
    names = ["fails", "hangs", "grows", "cancelled", "lost"]
    project = troubled(copied, *names)
    time_and_memory = ["train_cohort:runtime=attempt", "train_cohort:mem_mb=1200 * attempt"]
    running = project.launch("curvature", "--set-resources", *time_and_memory)

    def number(name):
        """Of the Slurm job that trains a method."""
        rows = cluster.say("squeue", "-h", "-o", "%i|%T|%N|%k").splitlines()
        found = [row.split("|") for row in rows if f"_{name}_" in row and "train_cohort" in row and "RUNNING" in row]
        return found[0][0] if found else ""

    wait("the job to be cancelled", lambda: not (project.root / "trouble/cancelled").exists() and number("cancelled"))
    cluster.say("scancel", number("cancelled"))
    wait("the job to be lost", lambda: not (project.root / "trouble/lost").exists() and number("lost"))
    node = cluster.say("squeue", "-h", "-j", number("lost"), "-o", "%N").strip()
    others = {name: number(name) for name in names}
    cluster.say("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait("the lost job to be sent again", lambda: number("lost") not in ("", others["lost"]), 120)
    cluster.say("scontrol", "update", f"nodename={node}", "state=resume")
    assert running.wait(240) == 0, (project.root / "launched.out").read_text()[-8000:]
    assert not cluster.jobs()
    assert project.contents() == of(reference, *names, "fresh")
    for name in names:
        tasks, jobs = begun(project, name)
        assert len(jobs) == 2, f"{name}: sent again once"
        assert tasks == [*range(6), *range(5, TASKS)], f"{name}: goes on from its last finished task"
        assert re.search(rf"slurm job {jobs[1]} on node g\d", project.log(cohort(name)))
    said = (project.root / "launched.out").read_text()
    assert "a disk that was gone for a moment" in said, "what a failed job said is shown"
    assert re.search(r"\d+ Slurm jobs, about [\d.]+ GPU-hours", said)


def test_a_job_that_is_told_to_stop_goes_on_from_its_last_task(copied, reference, cluster):
    project = troubled(copied, "preempted")
    running = project.launch("curvature")
    wait("the job that is told to stop", lambda: not (project.root / "trouble/preempted").exists())
    cluster.say("scancel", "--signal=TERM", "--full", *cluster.jobs("RUNNING"))
    assert running.wait(120) == 0, (project.root / "launched.out").read_text()[-8000:]
    tasks, jobs = begun(project, "preempted")
    assert len(jobs) == 2
    assert tasks == [*range(6), *range(5, TASKS)], "only the task at hand is done twice"
    assert project.contents()[f"{cohort('preempted')}/measures.nc"] == reference.contents()[f"{cohort('preempted')}/measures.nc"]


def halfway(copied, cluster):
    """A project of which one job is left, which trains slowly; its launcher, and the number of the job."""
    project = troubled(copied, "slow", pause=2)
    running = project.launch("curvature")
    wait("one job that trains", lambda: len(begun(project, "slow")[0]) > 2 and len(cluster.jobs()) == 1)
    return project, running, cluster.jobs()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_launcher_that_is_told_to_stop_leaves_nothing_behind_and_goes_on_later(copied, cluster, reference, number):
    project, running, _ = halfway(copied, cluster)
    os.kill(running.pid, number)
    assert running.wait(120) != 0
    wait("the end of its jobs", lambda: not cluster.jobs())
    project.build("curvature")
    assert project.contents() == of(reference, "slow", "fresh")
    assert len(begun(project, "slow")[0]) <= TASKS + 1, "at most one task is done twice"


def killed(project, running):
    """What a launcher that was killed leaves: jobs, and a lock."""
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert project.run(sys.executable, "-m", "snakemake", "--cores", "1", "--unlock").returncode == 0


def test_a_launcher_that_is_killed_leaves_jobs_that_are_never_doubled_and_whose_work_counts(copied, cluster, reference):
    project, running, left = halfway(copied, cluster)
    killed(project, running)
    refused = project.snakemake("curvature")
    assert refused.returncode != 0
    assert f"1 Slurm jobs of this folder still run, of a start that goes on or was killed: {left}" in refused.stdout
    assert "make orphans ARGS=--cancel" in refused.stdout
    assert project.run(sys.executable, "-m", "snakemake", "--cores", "1", "curvature").returncode != 0, "nor does one without the cluster"
    listed = project.run(sys.executable, "workflow/scripts/orphans.py").stdout
    assert re.search(rf"^{left}  RUNNING +rule_train_cohort", listed, re.MULTILINE)
    assert cluster.jobs() == [left], "nothing was doubled, and nothing cancelled unasked"
    wait("the end of the job that was left", lambda: not cluster.jobs(), 120)
    project.build("curvature")
    assert project.contents() == of(reference, "slow", "fresh")
    assert begun(project, "slow") == (list(range(TASKS)), [left]), "what the orphan finished is not done again"


def test_orphans_are_cancelled_if_asked(copied, cluster, reference):
    project, running, _ = halfway(copied, cluster)
    killed(project, running)
    done = project.run(sys.executable, "workflow/scripts/orphans.py", "--cancel")
    assert re.search(r"^1 jobs of .*, and are cancelled$", done.stdout, re.MULTILINE)
    wait("its end", lambda: not cluster.jobs())
    project.build("curvature")
    assert project.contents() == of(reference, "slow", "fresh")
    assert len(begun(project, "slow")[0]) <= TASKS + 1, "at most one task is done twice"


def test_training_has_a_gpu_and_curvature_none_each_in_its_partition(copied, cluster):
    project = copied()
    running = project.launch("curvature")
    seen = {}
    while running.poll() is None:
        for row in cluster.say("squeue", "-h", "-o", "%k|%P|%b").splitlines():
            comment, partition, gres = row.split("|")
            seen[comment.partition("_wildcards")[0]] = (partition, gres)
    assert running.returncode == 0
    assert seen["rule_train_cohort"][0] == "gpu"
    assert "gpu:1" in seen["rule_train_cohort"][1]
    assert seen["rule_measure_cohort"] == ("cpu", "N/A")


def test_a_site_that_says_nothing_is_asked_in_a_sentence(copied):
    project = copied()
    (project.root / "slurm/site.yaml").unlink()
    done = project.snakemake("curvature")
    assert done.returncode != 0
    assert "Slurm needs the site's partition and account: write 'partition: NAME' and 'account: NAME' to slurm/site.yaml" in done.stdout
    assert "Traceback" not in done.stdout
    (project.root / "slurm/site.yaml").write_text(yaml.safe_dump({"partitoin": "gpu"}))
    done = project.snakemake("curvature")
    assert "slurm/site.yaml holds {'partitoin': 'gpu'}: write partition, account, cpu_partition, each with a name" in done.stdout
