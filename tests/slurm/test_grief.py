"""What becomes of a study on a real Slurm, with the profile as shipped, when its jobs or its launcher come to grief."""

import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from cluster import wait
from on_cluster import PATIENCE, lasting
from projects import ROOT

pytestmark = pytest.mark.slurm

IN_TROUBLE = (
    threading.Event()
)  # of the first scene: one of its jobs must hang before its time is over, so others start later
SETTING = "digits_labels_relu"
TASKS = 20
TROUBLE = '''"""Notes each task that begins; waits in task 3 while trouble/pause is there; does once in task 5 what trouble/NAME is for."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from plasticity.training.learner import Learner
from plasticity.training.method import Intervention


@dataclass
class Method(Intervention):
    def on_task_start(self, learner: Learner) -> None:
        with Path("trouble/NAME.begun").open("a") as begun:
            begun.write(f"{learner.task} {os.environ.get('SLURM_JOB_ID')}\\n")
        trouble, pause = Path("trouble/NAME"), Path("trouble/pause")
        if learner.task == 5 and trouble.exists():
            trouble.unlink()
            DEED
        for _ in range(3000 if learner.task == 3 else 0):
            if pause.exists():
                time.sleep(0.1)
'''
WAIT = "time.sleep(600)"
DEEDS = {
    "fails": "raise OSError('a disk that was gone for a evaluation_point')",
    "hangs": WAIT,
    "grows": "[torch.ones(10**8).sum() for held in [[torch.ones(10**7) for _ in range(60)]]]; time.sleep(60)",
    "cancelled": WAIT,
    "stopped": WAIT,
    "lost": WAIT,
    "preempted": WAIT,
    "slow": "pass",
}


class Troubled:
    """A project with a method for each trouble, and the tiny study on one setting.

    Attributes:
        project: the copy of the repository.
        names: of the methods.
        outcomes: what the training of these methods makes, to be built.
    """

    def __init__(self, copied, *names, trouble=True, pause=False, **site):
        def change(config):
            config.clear()
            config |= yaml.safe_load((ROOT / "tests/workflow/study.yaml").read_text())
            config["settings"] = {SETTING: config["settings"][SETTING]}
            config["settings"][SETTING]["problem"]["tasks"] = TASKS
            config |= {"seeds_per_job": 2, "methods": {name: {} for name in names}}

        self.project, self.names = copied(change, **site), names
        self.outcomes = [f"results/tiny/runs/{SETTING}/{name}/0-1/outcomes.nc" for name in names]
        self.folder = self.project.root / "trouble"
        self.folder.mkdir()
        if pause:
            (self.folder / "pause").touch()
        for name in names:
            text = TROUBLE.replace("DEED", DEEDS[name]).replace("NAME", name)
            (
                self.project.root / f"workflow/scripts/plasticity/training/methods/{name}.py"
            ).write_text(text)
            if trouble:
                (self.folder / name).touch()

    def begun(self, name):
        """The tasks that an ensemble began, and the Slurm jobs that began them, in order."""
        path = self.folder / f"{name}.begun"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(task) for task, _ in rows], list(dict.fromkeys(job for _, job in rows))

    def in_trouble(self, name):
        """Wait until a method's trouble is there; the Slurm job that trains it."""
        wait(f"the trouble of {name}", lambda: not (self.folder / name).exists())
        (found,) = [
            job
            for job in self.project.jobs()
            if f"_{name}_" in job.comment and "train_ensemble" in job.comment
        ]
        return found

    def ends(self, running, reference):
        """The launcher ends well, no job is left, every trouble cost one task and no result is another than in quiet."""
        assert running.wait(PATIENCE) == 0, self.project.said[-8000:]
        assert not self.project.jobs()
        assert self.runs() == self.expected(reference)
        for name in self.names:
            tasks, jobs = self.begun(name)
            assert len(jobs) == 2, f"{name}: sent again once"
            assert tasks == [*range(6), *range(5, TASKS)], (
                f"{name}: goes on from its last finished task"
            )
            log = self.project.root / f"results/tiny/logs/runs/{SETTING}/{name}/0-1/train.log"
            assert re.search(rf"slurm job {jobs[1]} on node g\d", log.read_text())

    def goes_on(self, reference):
        """A new start, without the cluster, makes the results that are made in quiet; at most one task is done twice."""
        assert not self.project.jobs()
        self.project.local(*self.outcomes)
        assert self.runs() == self.expected(reference)
        assert len(self.begun("slow")[0]) <= TASKS + 1

    def expected(self, reference):
        """Digests that the reference has for these methods."""
        return {
            path: digest for path, digest in reference.items() if path.split("/")[1] in self.names
        }

    def runs(self):
        """Digests of what was trained."""
        return lasting(self.project.root / "results/tiny/runs")

    def halfway(self):
        """The launcher of a study whose job is in its task 3, and that job."""
        running = self.project.launch(*self.outcomes)
        wait(
            "its job in task 3",
            lambda: len(self.begun("slow")[0]) == 4 and len(self.project.jobs()) == 1,
        )
        return running, self.project.jobs()[0]

    def kill(self, running):
        """Kill a launcher, and take away the lock that it leaves."""
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert (
            self.project.run(
                sys.executable, "-m", "snakemake", "--cores", "1", "--unlock"
            ).returncode
            == 0
        )


def jobs_come_to_grief(copied, reference):
    """One fails, one hangs until its time is over, one wants memory, one is cancelled, one is told to stop; all in one study."""
    at = Troubled(copied, "fails", "hangs", "grows", "cancelled", "stopped")
    less = [
        "train_ensemble:runtime=2 * attempt if wildcards.method == 'hangs' else 30",
        "train_ensemble:mem_mb=1200 * attempt",
    ]
    running = at.project.launch(*at.outcomes, "--set-resources", *less)
    at.project.cluster.say("scancel", at.in_trouble("cancelled").number)
    at.project.cluster.say("scancel", "--signal=TERM", "--full", at.in_trouble("stopped").number)
    wait("the trouble of all", lambda: not any((at.folder / name).exists() for name in at.names))
    IN_TROUBLE.set()
    at.ends(running, reference)
    assert "a disk that was gone for a evaluation_point" in at.project.said, (
        "what a failed job said is shown"
    )
    assert re.search(
        r"5 Slurm jobs, about [\d.]+ GPU-hours and [\d.]+ hours without a GPU.*; the longest: \w+",
        at.project.said,
    )


def a_node_is_lost(copied, reference):
    at = Troubled(copied, "lost", partition="frail")
    running = at.project.launch(*at.outcomes)
    was = at.in_trouble("lost")
    at.project.cluster.lose(was.node)

    def again():
        return [
            job
            for job in at.project.jobs()
            if "_lost_" in job.comment and job.state == "RUNNING" and job.number != was.number
        ]

    wait("the lost job to be sent again", again)
    (elsewhere,) = again()
    assert elsewhere.node != was.node
    at.ends(running, reference)


def a_job_is_preempted(copied, reference):
    at = Troubled(copied, "preempted", partition="low")
    running = at.project.launch(*at.outcomes)
    job = at.in_trouble("preempted")
    at.project.cluster.say(
        "sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    )
    wait(
        "the job to make room",
        lambda: (
            job.number not in [one.number for one in at.project.jobs() if one.state == "RUNNING"]
        ),
    )
    at.ends(running, reference)


def launcher_is_interrupted(copied, reference):
    at = Troubled(copied, "slow", pause=True)
    running, _ = at.halfway()
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(PATIENCE) != 0
    wait("the end of its job", lambda: not at.project.jobs())
    assert len(at.begun("slow")[0]) < TASKS, "the job was cancelled"
    (at.folder / "pause").unlink()
    at.goes_on(reference)


def launcher_is_terminated(copied, reference):
    at = Troubled(copied, "slow", pause=True)
    running, left = at.halfway()
    os.kill(running.pid, signal.SIGTERM)
    (at.folder / "pause").unlink()
    assert running.wait(PATIENCE) != 0
    assert not at.project.jobs()
    assert at.begun("slow") == (list(range(TASKS)), [left.number]), "the job was waited for"
    at.goes_on(reference)


def launcher_is_killed(copied, reference):
    at = Troubled(copied, "slow", pause=True)
    running, left = at.halfway()
    at.kill(running)
    refused = at.project.snakemake(*at.outcomes)
    assert refused.returncode != 0
    assert (
        f"1 Slurm jobs of this folder still run, of a start that goes on or was killed: {left.number}"
        in refused.stdout
    )
    assert "make orphans ARGS=--cancel" in refused.stdout
    assert (
        at.project.run(sys.executable, "-m", "snakemake", "--cores", "1", *at.outcomes).returncode
        != 0
    ), "nor does one without the cluster"
    listed = at.project.run(sys.executable, "workflow/scripts/orphans.py").stdout
    assert re.search(rf"^{left.number}  RUNNING +rule_train_ensemble", listed, re.MULTILINE)
    assert [job.number for job in at.project.jobs()] == [left.number], (
        "nothing was doubled, and nothing cancelled unasked"
    )
    (at.folder / "pause").unlink()
    wait("the end of the job that was left", lambda: not at.project.jobs())
    at.project.build(*at.outcomes)
    assert at.begun("slow") == (list(range(TASKS)), [left.number]), (
        "what the orphan finished is not done again"
    )
    at.goes_on(reference)


def orphans_are_cancelled(copied, reference):
    at = Troubled(copied, "slow", pause=True)
    running, _ = at.halfway()
    at.kill(running)
    done = at.project.run(sys.executable, "workflow/scripts/orphans.py", "--cancel")
    assert re.search(r"^1 jobs of .*, and are cancelled$", done.stdout, re.MULTILINE)
    wait("its end", lambda: not at.project.jobs())
    (at.folder / "pause").unlink()
    at.goes_on(reference)


SCENES = [
    jobs_come_to_grief,
    a_node_is_lost,
    a_job_is_preempted,
    launcher_is_killed,
    launcher_is_interrupted,
    launcher_is_terminated,
    orphans_are_cancelled,
]


@pytest.fixture(scope="module")
def reference(copied):
    """What every trouble's method makes without its trouble and without the cluster."""
    at = Troubled(copied, *DEEDS, trouble=False)
    at.project.local(*at.outcomes)
    return at.runs()


@pytest.fixture(scope="module")
def played(request, copied, reference):
    """All chosen scenes at once, since in each there is more to wait for than to do."""
    scenes = [
        item.callspec.params["scene"]
        for item in request.session.items
        if "played" in item.fixturenames
    ]
    begun = {}
    with ThreadPoolExecutor(len(scenes)) as pool:
        for scene in scenes:
            begun[scene] = pool.submit(scene, copied, reference)
            if scene is jobs_come_to_grief:
                wait(
                    "a quiet evaluation_point",
                    lambda: IN_TROUBLE.is_set() or begun[jobs_come_to_grief].done(),
                )
        yield begun


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_nothing_is_lost_doubled_or_left_behind_when(played, scene):
    played[scene].result()


def test_a_site_that_says_nothing_is_asked_in_a_sentence(copied):
    project = copied()
    (project.root / "slurm/site.yaml").unlink()
    done = project.snakemake("curvature")
    assert done.returncode != 0
    assert (
        "Slurm needs the site's partition and account: write 'partition: NAME' and 'account: NAME' to slurm/site.yaml"
        in done.stdout
    )
    assert "Traceback" not in done.stdout
    (project.root / "slurm/site.yaml").write_text(yaml.safe_dump({"partitoin": "gpu"}))
    done = project.snakemake("curvature")
    assert (
        "slurm/site.yaml holds {'partitoin': 'gpu'}: write partition, account, cpu_partition, each with a name"
        in done.stdout
    )
