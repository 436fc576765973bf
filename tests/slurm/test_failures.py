"""Failures on a real Slurm: studies whose jobs or launchers fail give the same results.

The profile is the one that the project ships. A scenario is a function that causes a failure and
checks the results. All scenarios run at once, because they mostly wait.
"""

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

# Set when all jobs of `jobs_fail` have failed. One of them must reach its failure before its time
# is over, so the other scenarios start afterwards.
JOBS_HAVE_FAILED = threading.Event()
SETTING = "digits_labels_relu"
TASKS = 20
METHOD = '''"""Log each task, and fail once.

It waits in task 3 while failures/pause exists, and fails in task 5 if failures/NAME exists.
"""

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
        with Path("failures/NAME.tasks").open("a") as log:
            log.write(f"{learner.task} {os.environ.get('SLURM_JOB_ID')}\\n")
        failure, pause = Path("failures/NAME"), Path("failures/pause")
        if learner.task == 5 and failure.exists():
            failure.unlink()
            ACTION
        for _ in range(3000 if learner.task == 3 else 0):
            if pause.exists():
                time.sleep(0.1)
'''
WAIT = "time.sleep(600)"
ACTIONS = {
    "fails": "raise OSError('the disk is gone')",
    "hangs": WAIT,
    "grows": "tensors = [torch.ones(10**7) for _ in range(60)]; torch.ones(10**8); time.sleep(60)",
    "cancelled": WAIT,
    "stopped": WAIT,
    "lost": WAIT,
    "preempted": WAIT,
    "slow": "pass",
}


class FailingStudy:
    """The tiny study on one setting, with a method for each kind of failure.

    Attributes:
        project: the copy of the repository.
        names: of the methods, which are keys of `ACTIONS`.
        outcomes: results of the training of these methods.
        folder: of the files that cause failures and log tasks.
    """

    def __init__(self, copied, *names, fails=True, pause=False, **site):
        def change(config):
            config.clear()
            config |= yaml.safe_load((ROOT / "tests/workflow/study.yaml").read_text())
            config["settings"] = {SETTING: config["settings"][SETTING]}
            config["settings"][SETTING]["problem"]["tasks"] = TASKS
            config |= {"seeds_per_job": 2, "methods": {name: {} for name in names}}

        self.project, self.names = copied(change, **site), names
        self.outcomes = [f"results/tiny/runs/{SETTING}/{name}/0-1/outcomes.nc" for name in names]
        self.folder = self.project.root / "failures"
        self.folder.mkdir()
        if pause:
            (self.folder / "pause").touch()
        methods = self.project.root / "workflow/scripts/plasticity/training/methods"
        for name in names:
            text = METHOD.replace("ACTION", ACTIONS[name]).replace("NAME", name)
            (methods / f"{name}.py").write_text(text)
            if fails:
                (self.folder / name).touch()

    def logged_tasks(self, name):
        """Return the tasks that an ensemble started, and the Slurm jobs that ran them, in order."""
        path = self.folder / f"{name}.tasks"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(task) for task, _ in rows], list(dict.fromkeys(job for _, job in rows))

    def wait_for_failure(self, name):
        """Wait until a method reaches its failure; return the Slurm job that trains it."""
        wait(f"the failure of {name}", lambda: not (self.folder / name).exists())
        (job,) = [
            job
            for job in self.project.jobs()
            if f"_{name}_" in job.comment and "train_ensemble" in job.comment
        ]
        return job

    def check_recovery(self, launcher, reference):
        """Check that the launcher succeeds, that each failure costs one task, and the results."""
        assert launcher.wait(PATIENCE) == 0, self.project.launcher_output[-8000:]
        assert not self.project.jobs()
        assert self.digests() == self.expected_digests(reference)
        for name in self.names:
            tasks, jobs = self.logged_tasks(name)
            assert len(jobs) == 2, f"{name} is submitted again once"
            assert tasks == [*range(6), *range(5, TASKS)], f"{name} repeats one task"
            log = self.project.root / f"results/tiny/logs/runs/{SETTING}/{name}/0-1/train.log"
            assert re.search(rf"slurm job {jobs[1]} on node g\d", log.read_text())

    def check_continuation(self, reference):
        """Check that a new start without the cluster gives the same results, one task repeated."""
        assert not self.project.jobs()
        self.project.local(*self.outcomes)
        assert self.digests() == self.expected_digests(reference)
        assert len(self.logged_tasks("slow")[0]) <= TASKS + 1

    def expected_digests(self, reference):
        """Return the digests in the reference of the results of these methods."""
        return {
            path: digest for path, digest in reference.items() if path.split("/")[1] in self.names
        }

    def digests(self):
        """Return the digests of the results of training."""
        return lasting(self.project.root / "results/tiny/runs")

    def launch_until_task_3(self):
        """Start a launcher; return it and its job as soon as the job is in task 3."""
        launcher = self.project.launch(*self.outcomes)
        wait(
            "its job in task 3",
            lambda: len(self.logged_tasks("slow")[0]) == 4 and len(self.project.jobs()) == 1,
        )
        return launcher, self.project.jobs()[0]

    def kill(self, launcher):
        """Kill a launcher, and remove the lock that it leaves."""
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--unlock"]
        assert self.project.run(*command).returncode == 0


# Scenarios


def jobs_fail(copied, reference):
    """In one study, jobs raise, exceed their time or memory, are cancelled, or are stopped."""
    study = FailingStudy(copied, "fails", "hangs", "grows", "cancelled", "stopped")
    limits = [
        "train_ensemble:runtime=2 * attempt if wildcards.method == 'hangs' else 30",
        "train_ensemble:mem_mb=1200 * attempt",
    ]
    launcher = study.project.launch(*study.outcomes, "--set-resources", *limits)
    cluster = study.project.cluster
    cluster.output("scancel", study.wait_for_failure("cancelled").number)
    stopped = study.wait_for_failure("stopped").number
    cluster.output("scancel", "--signal=TERM", "--full", stopped)
    wait("all failures", lambda: not any((study.folder / name).exists() for name in study.names))
    JOBS_HAVE_FAILED.set()
    study.check_recovery(launcher, reference)
    output = study.project.launcher_output
    assert "the disk is gone" in output, "the log of a failed job is shown"
    assert re.search(
        r"5 Slurm jobs, about [\d.]+ GPU-hours and [\d.]+ hours without a GPU.*; the longest: \w+",
        output,
    )


def a_node_is_lost(copied, reference):
    study = FailingStudy(copied, "lost", partition="frail")
    launcher = study.project.launch(*study.outcomes)
    lost_job = study.wait_for_failure("lost")
    study.project.cluster.lose(lost_job.node)

    def new_jobs():
        return [
            job
            for job in study.project.jobs()
            if "_lost_" in job.comment and job.state == "RUNNING" and job.number != lost_job.number
        ]

    wait("the new job", new_jobs)
    (new_job,) = new_jobs()
    assert new_job.node != lost_job.node
    study.check_recovery(launcher, reference)


def a_job_is_preempted(copied, reference):
    study = FailingStudy(copied, "preempted", partition="low")
    launcher = study.project.launch(*study.outcomes)
    job = study.wait_for_failure("preempted")
    study.project.cluster.output(
        "sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    )

    def is_preempted():
        running = [other.number for other in study.project.jobs() if other.state == "RUNNING"]
        return job.number not in running

    wait("the preemption", is_preempted)
    study.check_recovery(launcher, reference)


def launcher_is_interrupted(copied, reference):
    study = FailingStudy(copied, "slow", pause=True)
    launcher, _ = study.launch_until_task_3()
    os.kill(launcher.pid, signal.SIGINT)
    assert launcher.wait(PATIENCE) != 0
    wait("the end of its job", lambda: not study.project.jobs())
    assert len(study.logged_tasks("slow")[0]) < TASKS, "the job was cancelled"
    (study.folder / "pause").unlink()
    study.check_continuation(reference)


def launcher_is_terminated(copied, reference):
    study = FailingStudy(copied, "slow", pause=True)
    launcher, job = study.launch_until_task_3()
    os.kill(launcher.pid, signal.SIGTERM)
    (study.folder / "pause").unlink()
    assert launcher.wait(PATIENCE) != 0
    assert not study.project.jobs()
    all_tasks = (list(range(TASKS)), [job.number])
    assert study.logged_tasks("slow") == all_tasks, "the launcher waited for the job"
    study.check_continuation(reference)


def launcher_is_killed(copied, reference):
    study = FailingStudy(copied, "slow", pause=True)
    launcher, job = study.launch_until_task_3()
    study.kill(launcher)
    refused = study.project.snakemake(*study.outcomes)
    assert refused.returncode != 0
    assert "1 Slurm jobs of this folder still run" in refused.stdout
    assert f"killed: {job.number}" in refused.stdout
    assert "make orphans ARGS=--cancel" in refused.stdout
    without_cluster = [sys.executable, "-m", "snakemake", "--cores", "1", *study.outcomes]
    assert study.project.run(*without_cluster).returncode != 0
    listed = study.project.run(sys.executable, "workflow/scripts/orphans.py").stdout
    assert re.search(rf"^{job.number}  RUNNING +rule_train_ensemble", listed, re.MULTILINE)
    numbers = [other.number for other in study.project.jobs()]
    assert numbers == [job.number], "no job was submitted twice or cancelled"
    (study.folder / "pause").unlink()
    wait("the end of the orphaned job", lambda: not study.project.jobs())
    study.project.build(*study.outcomes)
    all_tasks = (list(range(TASKS)), [job.number])
    assert study.logged_tasks("slow") == all_tasks, "no task of the orphaned job is repeated"
    study.check_continuation(reference)


def orphans_are_cancelled(copied, reference):
    study = FailingStudy(copied, "slow", pause=True)
    launcher, _ = study.launch_until_task_3()
    study.kill(launcher)
    done = study.project.run(sys.executable, "workflow/scripts/orphans.py", "--cancel")
    assert re.search(r"^1 unfinished jobs of .*, now cancelled$", done.stdout, re.MULTILINE)
    wait("the end of the job", lambda: not study.project.jobs())
    (study.folder / "pause").unlink()
    study.check_continuation(reference)


SCENARIOS = [
    jobs_fail,
    a_node_is_lost,
    a_job_is_preempted,
    launcher_is_killed,
    launcher_is_interrupted,
    launcher_is_terminated,
    orphans_are_cancelled,
]


@pytest.fixture(scope="module")
def reference(copied):
    """Digests of the results of all methods without failures and without the cluster."""
    study = FailingStudy(copied, *ACTIONS, fails=False)
    study.project.local(*study.outcomes)
    return study.digests()


@pytest.fixture(scope="module")
def running_scenarios(request, copied, reference):
    """All selected scenarios, each running in a thread."""
    scenarios = [
        item.callspec.params["scenario"]
        for item in request.session.items
        if "running_scenarios" in item.fixturenames
    ]
    futures = {}

    def can_start_others():
        return JOBS_HAVE_FAILED.is_set() or futures[jobs_fail].done()

    with ThreadPoolExecutor(len(scenarios)) as pool:
        for scenario in scenarios:
            futures[scenario] = pool.submit(scenario, copied, reference)
            if scenario is jobs_fail:
                wait("the failures of all jobs", can_start_others)
        yield futures


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_results_equal_the_reference_when(running_scenarios, scenario):
    running_scenarios[scenario].result()


def test_missing_or_misspelt_site_settings_give_one_sentence(copied):
    project = copied()
    (project.root / "slurm/site.yaml").unlink()
    done = project.snakemake("curvature")
    assert done.returncode != 0
    lines = "write 'partition: NAME' and 'account: NAME' to slurm/site.yaml"
    assert f"Slurm needs the site's partition and account: {lines}" in done.stdout
    assert "Traceback" not in done.stdout
    (project.root / "slurm/site.yaml").write_text(yaml.safe_dump({"partitoin": "gpu"}))
    done = project.snakemake("curvature")
    keys = "write partition, account, cpu_partition, each with a name"
    assert f"slurm/site.yaml holds {{'partitoin': 'gpu'}}: {keys}" in done.stdout
