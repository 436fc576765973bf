"""The default study on a real Slurm with accounting: what it makes, and where its jobs run. It is compared with what `make run` makes."""

import pytest
from cluster import wait
from conftest import ROOT, lasting

pytestmark = pytest.mark.slurm
ACCOUNTING = True


def test_the_default_study_is_that_of_a_run_without_a_cluster(copied, cluster):
    here = ROOT / "results/digits"
    assert (here / "report.html").exists(), "make run comes first"
    project = copied(account="lab")
    running = project.launch()
    seen = {}

    def ended():
        seen.update({job.comment.partition("_wildcards")[0]: job for job in project.jobs()})
        return running.poll() is not None

    wait("the end of the study", ended, 1500, every=1)
    assert running.returncode == 0, project.said[-8000:]
    assert not project.jobs()
    assert {rule: (job.partition, "gpu:1" in job.gres) for rule, job in seen.items()} == {
        "rule_train_cohort": ("gpu", True),
        "rule_measure_cohort": ("cpu", False),
    }
    jobs = [line.split("|") for line in cluster.say("sacct", "-n", "-P", "-X", "-A", "lab", "-o", "State,JobName").splitlines()]
    assert {state for state, _ in jobs} == {"COMPLETED"}
    assert len(jobs) == 22
    assert lasting(project.root / "results/digits") == lasting(here)
    assert (project.root / "results/digits/report.html").exists()
