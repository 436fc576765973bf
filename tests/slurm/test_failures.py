"""Failures on a real Slurm: studies whose jobs or launchers fail give the same results.

The profile is the one that the project ships. A launcher is a Snakemake process that submits jobs.
A scenario is a function that causes a failure and checks the results. All scenarios run at once,
because they mostly wait.
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
from on_cluster import SNAKEMAKE, TIMEOUT, portable_digests
from projects import ROOT

pytestmark = pytest.mark.slurm

# Set when all jobs of `jobs_fail` have failed. One of these jobs must reach its failure before its
# time limit, so the other scenarios start afterwards.
JOBS_HAVE_FAILED = threading.Event()
SETTING = "digits_labels_relu"
TASKS = 20
METHOD = '''"""Log each task, and fail once.

It fails in task 5 if failures/NAME exists. In task 3 it waits while failures/pause exists.
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
        failure = Path("failures/NAME")
        if learner.task == 5 and failure.exists():
            failure.unlink()
            ACTION
        pause = Path("failures/pause")
        deadline = time.monotonic() + 300
        while learner.task == 3 and pause.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
'''
WAIT = "time.sleep(600)"
# statement that fails, or waits for a failure, by the name of the method
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
        names: names of the methods, which are keys of `ACTIONS`.
        outcomes: paths of the outcomes of these methods.
        folder: has the files that cause failures, and the logs of tasks.
    """

    def __init__(self, create_project, *names, is_failing=True, is_paused=False, **site):
        def change(config):
            config.clear()
            config |= yaml.safe_load((ROOT / "tests/workflow/study.yaml").read_text())
            config["settings"] = {SETTING: config["settings"][SETTING]}
            config["settings"][SETTING]["problem"]["tasks"] = TASKS
            config["seeds_per_job"] = 2
            config["methods"] = {name: {} for name in names}
            del config["interventions"]

        self.project = create_project(change, **site)
        self.names = names
        self.outcomes = [f"results/tiny/runs/{SETTING}/{name}/0-1/outcomes.nc" for name in names]
        self.folder = self.project.root / "failures"
        self.folder.mkdir()
        if is_paused:
            (self.folder / "pause").touch()
        for name in names:
            self._write_method(name)
            if is_failing:
                (self.folder / name).touch()

    def _write_method(self, name):
        """Add a method to the project."""
        methods = self.project.root / "workflow/scripts/plasticity/training/methods"
        text = METHOD.replace("ACTION", ACTIONS[name]).replace("NAME", name)
        (methods / f"{name}.py").write_text(text)

    def resume_training(self):
        """End the wait in task 3."""
        (self.folder / "pause").unlink()

    def _log(self, name):
        """Return a task and a Slurm job for each task that an ensemble started, in order."""
        path = self.folder / f"{name}.tasks"
        if not path.exists():
            return []
        return [line.split() for line in path.read_text().splitlines()]

    def started_tasks(self, name):
        """Return the tasks that an ensemble started, in order."""
        return [int(task) for task, _ in self._log(name)]

    def training_jobs(self, name):
        """Return the numbers of the Slurm jobs that trained an ensemble, in order."""
        return list(dict.fromkeys(job for _, job in self._log(name)))

    def wait_for_failure(self, name):
        """Wait until a method reaches its failure, and return the Slurm job that trains it."""
        wait(f"the failure of {name}", lambda: not (self.folder / name).exists())
        (job,) = [
            job
            for job in self.project.jobs()
            if f"_{name}_" in job.comment and "train_ensemble" in job.comment
        ]
        return job

    def check_recovery(self, launcher, reference):
        """Check that the launcher succeeds, that each failure costs one task, and the results."""
        assert launcher.wait(TIMEOUT) == 0, self.project.launcher_output[-8000:]
        assert not self.project.jobs()
        assert self.digests() == self.expected_digests(reference)
        for name in self.names:
            jobs = self.training_jobs(name)
            assert len(jobs) == 2, f"{name} is submitted again once"
            tasks = self.started_tasks(name)
            assert tasks == [*range(6), *range(5, TASKS)], f"{name} repeats one task"
            log = self.project.root / f"results/tiny/logs/runs/{SETTING}/{name}/0-1/train.log"
            assert re.search(rf"slurm job {jobs[1]} on node g\d", log.read_text())

    def check_continuation(self, reference):
        """Check that a new start without the cluster repeats at most one task, and the results."""
        assert not self.project.jobs()
        self.project.build_without_cluster(*self.outcomes)
        assert self.digests() == self.expected_digests(reference)
        assert len(self.started_tasks("slow")) <= TASKS + 1

    def check_one_job_trained_all_tasks(self, job):
        """Check that a job trained each task of the slow method once."""
        assert self.started_tasks("slow") == list(range(TASKS))
        assert self.training_jobs("slow") == [job.number]

    def expected_digests(self, reference):
        """Return the digests of the results of these methods in the reference."""
        return {
            path: digest for path, digest in reference.items() if path.split("/")[1] in self.names
        }

    def digests(self):
        """Return the digests of the results of training."""
        return portable_digests(self.project.root / "results/tiny/runs")

    def launch_until_task_3(self):
        """Start a launcher, wait for task 3 of its job, and return the launcher and the job."""
        launcher = self.project.launch(*self.outcomes)

        def is_in_task_3():
            return len(self.started_tasks("slow")) == 4 and len(self.project.jobs()) == 1

        wait("the start of task 3", is_in_task_3)
        return launcher, self.project.jobs()[0]

    def kill(self, launcher):
        """Kill a launcher, and remove the lock that it leaves."""
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        done = self.project.run(*SNAKEMAKE, "--cores", "1", "--unlock")
        assert done.returncode == 0


# Scenarios


def jobs_fail(create_project, reference):
    """Let jobs of one study raise, exceed their time or memory, be cancelled, and be stopped."""
    study = FailingStudy(create_project, "fails", "hangs", "grows", "cancelled", "stopped")
    limits = [
        "train_ensemble:runtime=2 * attempt if wildcards.method == 'hangs' else 30",
        "train_ensemble:mem_mb=1200 * attempt",
    ]
    launcher = study.project.launch(*study.outcomes, "--set-resources", *limits)
    cluster = study.project.cluster
    cluster.output("scancel", study.wait_for_failure("cancelled").number)
    cluster.output("scancel", "--signal=TERM", "--full", study.wait_for_failure("stopped").number)

    def have_all_failed():
        return not any((study.folder / name).exists() for name in study.names)

    wait("the failures of all jobs", have_all_failed)
    JOBS_HAVE_FAILED.set()
    study.check_recovery(launcher, reference)
    output = study.project.launcher_output
    assert "the disk is gone" in output, "the launcher prints the log of a failed job"
    assert re.search(
        r"5 Slurm jobs, about [\d.]+ GPU-hours and [\d.]+ hours without a GPU.*; the longest: \w+",
        output,
    )


def node_is_lost(create_project, reference):
    study = FailingStudy(create_project, "lost", partition="frail")
    launcher = study.project.launch(*study.outcomes)
    lost_job = study.wait_for_failure("lost")
    study.project.cluster.kill_node(lost_job.node)

    def new_jobs():
        return [
            job
            for job in study.project.jobs()
            if "_lost_" in job.comment and job.state == "RUNNING" and job.number != lost_job.number
        ]

    wait("the start of the new job", new_jobs)
    (new_job,) = new_jobs()
    assert new_job.node != lost_job.node
    study.check_recovery(launcher, reference)


def job_is_preempted(create_project, reference):
    study = FailingStudy(create_project, "preempted", partition="low")
    launcher = study.project.launch(*study.outcomes)
    preempted_job = study.wait_for_failure("preempted")
    options = ("--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    study.project.cluster.output("sbatch", *options)

    def is_preempted():
        running = [job.number for job in study.project.jobs() if job.state == "RUNNING"]
        return preempted_job.number not in running

    wait("the preemption", is_preempted)
    study.check_recovery(launcher, reference)


def launcher_is_interrupted(create_project, reference):
    study = FailingStudy(create_project, "slow", is_paused=True)
    launcher, _ = study.launch_until_task_3()
    os.kill(launcher.pid, signal.SIGINT)
    assert launcher.wait(TIMEOUT) != 0
    wait("the end of its job", lambda: not study.project.jobs())
    assert len(study.started_tasks("slow")) < TASKS, "the job was cancelled"
    study.resume_training()
    study.check_continuation(reference)


def launcher_is_terminated(create_project, reference):
    study = FailingStudy(create_project, "slow", is_paused=True)
    launcher, job = study.launch_until_task_3()
    os.kill(launcher.pid, signal.SIGTERM)
    study.resume_training()
    assert launcher.wait(TIMEOUT) != 0
    assert not study.project.jobs(), "the launcher waited for the job"
    study.check_one_job_trained_all_tasks(job)
    study.check_continuation(reference)


def launcher_is_killed(create_project, reference):
    study = FailingStudy(create_project, "slow", is_paused=True)
    launcher, job = study.launch_until_task_3()
    study.kill(launcher)
    refused = study.project.snakemake(*study.outcomes)
    assert refused.returncode != 0
    assert "1 Slurm jobs of this folder still run" in refused.stdout
    assert f"killed: {job.number}" in refused.stdout
    assert "make orphans ARGS=--cancel" in refused.stdout
    refused = study.project.run(*SNAKEMAKE, "--cores", "1", *study.outcomes)
    assert refused.returncode != 0, "Snakemake without the cluster refuses to run too"
    orphans = study.project.run(sys.executable, "workflow/scripts/orphans.py").stdout
    assert re.search(rf"^{job.number}  RUNNING +rule_train_ensemble", orphans, re.MULTILINE)
    numbers = [job.number for job in study.project.jobs()]
    assert numbers == [job.number], "no job was submitted twice or cancelled"
    study.resume_training()
    wait("the end of the orphaned job", lambda: not study.project.jobs())
    study.project.build(*study.outcomes)
    study.check_one_job_trained_all_tasks(job)
    study.check_continuation(reference)


def orphans_are_cancelled(create_project, reference):
    study = FailingStudy(create_project, "slow", is_paused=True)
    launcher, _ = study.launch_until_task_3()
    study.kill(launcher)
    done = study.project.run(sys.executable, "workflow/scripts/orphans.py", "--cancel")
    assert re.search(r"^1 unfinished jobs of .*, now cancelled$", done.stdout, re.MULTILINE)
    wait("the end of the job", lambda: not study.project.jobs())
    study.resume_training()
    study.check_continuation(reference)


SCENARIOS = [
    jobs_fail,
    node_is_lost,
    job_is_preempted,
    launcher_is_killed,
    launcher_is_interrupted,
    launcher_is_terminated,
    orphans_are_cancelled,
]


@pytest.fixture(scope="module")
def reference(create_project):
    """Compute the digests of the results of all methods, without failures or the cluster."""
    study = FailingStudy(create_project, *ACTIONS, is_failing=False)
    study.project.build_without_cluster(*study.outcomes)
    return study.digests()


@pytest.fixture(scope="module")
def running_scenarios(request, create_project, reference):
    """Start each selected scenario in a thread, and return the futures by scenario."""
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
            futures[scenario] = pool.submit(scenario, create_project, reference)
            if scenario is jobs_fail:
                wait("the failures of all jobs", can_start_others)
        yield futures


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_results_equal_the_reference_when(running_scenarios, scenario):
    running_scenarios[scenario].result()


def test_missing_or_misspelt_site_settings_give_one_sentence(create_project):
    project = create_project()
    (project.root / "slurm/site.yaml").unlink()
    done = project.snakemake("curvature")
    assert done.returncode != 0
    advice = "write 'partition: NAME' and 'account: NAME' to slurm/site.yaml"
    assert f"Slurm needs the site's partition and account: {advice}" in done.stdout
    assert "Traceback" not in done.stdout
    (project.root / "slurm/site.yaml").write_text(yaml.safe_dump({"partitoin": "gpu"}))
    done = project.snakemake("curvature")
    advice = "write partition, account, cpu_partition, curvature, each with a name"
    assert f"slurm/site.yaml holds {{'partitoin': 'gpu'}}: {advice}" in done.stdout
