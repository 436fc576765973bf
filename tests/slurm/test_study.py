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
TROUBLE = '''"""Tasks that take a moment; once, at the start of task 5, what the file `trouble/NAME` beside results/ is there for."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from plasticity.learner import Learner
from plasticity.methods import Intervention


@dataclass
class Method(Intervention):
    def switch(self, learner: Learner) -> None:
        trouble = Path("trouble/NAME")
        if learner.task == 5 and trouble.exists():
            trouble.unlink()
            {do}
        time.sleep({pause})
'''
DEEDS = {
    "fails": "raise OSError('a disk that was gone for a moment')",
    "hangs": "time.sleep(600)",
    "grows": "[torch.ones(10**8).sum() for held in [[torch.ones(10**7) for _ in range(200)]]]; time.sleep(60)",
    "cancelled": "time.sleep(600)",
    "lost": "time.sleep(600)",
    "preempted": "time.sleep(600)",
}


def troubled(copied, *names, pause=0.0, deeds=True):
    """A project with a method for each trouble."""

    def change(config):
        config["settings"][SETTING]["problem"]["tasks"] = TASKS
        config["curvature"] |= {"every": 10}
        config["methods"] = {name: {} for name in names}

    project = copied(change)
    for name in names:
        text = TROUBLE.format(do=DEEDS.get(name, "pass"), pause=pause).replace("NAME", name)
        (project.root / f"workflow/scripts/plasticity/methods/{name}.py").write_text(text)
    (project.root / "trouble").mkdir()
    if deeds:
        for name in names:
            (project.root / "trouble" / name).touch()
    return project


def cohort(method):
    return f"{SETTING}/{method}/0-1"


def done_tasks(log):
    """After which tasks a log says that a cohort was, in order."""
    return [int(number) for number in re.findall(rf"members 0 to 1: (\d+) of {TASKS}", log)]


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
    wanted = {name: digest for name, digest in reference.contents().items() if name.split("/")[1] in (*names, "fresh")}
    assert project.contents() == wanted
    for name in names:
        log = project.log(cohort(name))
        assert len(set(re.findall(r"slurm job (\d+) on node [gc]\d", log))) >= 2, f"{name}: the log has every attempt, its job and its node"
        tasks = done_tasks(log)
        assert sorted(set(tasks)) == list(range(1, TASKS + 1)), name
        assert len(tasks) == TASKS, f"{name}: no finished task is done twice"
    said = (project.root / "launched.out").read_text()
    assert "a disk that was gone for a moment" in project.log(cohort("fails"))
    assert re.search(r"\d+ Slurm jobs, about [\d.]+ GPU-hours", said)


def test_a_job_that_is_told_to_stop_goes_on_from_its_last_task(copied, reference, cluster):
    project = troubled(copied, "preempted")
    running = project.launch("curvature")
    wait("the job that is told to stop", lambda: not (project.root / "trouble/preempted").exists())
    cluster.say("scancel", "--signal=TERM", "--full", *cluster.jobs("RUNNING"))
    assert running.wait(120) == 0, (project.root / "launched.out").read_text()[-8000:]
    log = project.log(cohort("preempted"))
    assert "told to stop (SIGTERM)" in log
    assert done_tasks(log) == list(range(1, TASKS + 1)), "what was finished is not done again"
    assert project.contents()[f"{cohort('preempted')}/measures.nc"] == reference.contents()[f"{cohort('preempted')}/measures.nc"]


@pytest.fixture(scope="module")
def slow(copied):
    """What a launcher's end is tried on, made without the cluster."""
    project = troubled(copied, "slow", deeds=False)
    project.local("curvature")
    return project


def halfway(copied, cluster):
    """A project whose jobs train, slowly, and its launcher."""
    project = troubled(copied, "slow", pause=0.4, deeds=False)
    running = project.launch("curvature")
    wait("jobs that train", lambda: len(done_tasks(project.log(cohort("slow")))) > 2 and len(cluster.jobs("RUNNING")) == 2)
    return project, running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_launcher_that_is_told_to_stop_leaves_nothing_behind_and_goes_on_later(copied, cluster, slow, number):
    project, running = halfway(copied, cluster)
    os.kill(running.pid, number)
    assert running.wait(120) != 0
    wait("the end of its jobs", lambda: not cluster.jobs())
    project.build("curvature")
    assert contents_of(project) == contents_of(slow)


def contents_of(project):
    """Measures and outcomes, whose settings do not say how long a task was slept in."""
    return {name: digest for name, digest in project.contents().items() if "fresh" in name}


def test_a_launcher_that_is_killed_leaves_jobs_that_are_never_doubled_and_whose_work_counts(copied, cluster):
    project, running = halfway(copied, cluster)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert len(cluster.jobs()) == 2
    left = set(cluster.jobs())
    assert project.run(sys.executable, "-m", "snakemake", "--cores", "1", "--unlock").returncode == 0
    refused = project.snakemake("curvature")
    assert refused.returncode != 0
    assert "2 Slurm jobs of this folder still run" in refused.stdout
    assert "make orphans ARGS=--cancel" in refused.stdout
    assert project.run(sys.executable, "-m", "snakemake", "--cores", "1", "curvature").returncode != 0, "nor does one without the cluster"
    listed = project.run(sys.executable, "workflow/scripts/orphans.py").stdout
    assert all(re.search(rf"^{number}  RUNNING +rule_train_cohort", listed, re.MULTILINE) for number in left)
    assert set(cluster.jobs()) == left, "nothing was doubled, and nothing cancelled unasked"
    wait("the end of the jobs that were left", lambda: not cluster.jobs(), 120)
    project.build("curvature")
    tasks = done_tasks(project.log(cohort("slow")))
    assert tasks == list(range(1, TASKS + 1)), "what the orphan finished is not done again"


def test_orphans_are_cancelled_if_asked(copied, cluster):
    project, running = halfway(copied, cluster)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = project.run(sys.executable, "workflow/scripts/orphans.py", "--cancel")
    assert "2 jobs of" in done.stdout
    wait("their end", lambda: not cluster.jobs())
    assert project.run(sys.executable, "-m", "snakemake", "--cores", "1", "--unlock").returncode == 0
    project.build("curvature")
    assert sorted(set(done_tasks(project.log(cohort("slow"))))) == list(range(1, TASKS + 1))


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
