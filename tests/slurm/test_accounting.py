"""A study on a real Slurm with accounting gives the same results as without a cluster."""

import pytest
from cluster import wait
from on_cluster import TIMEOUT, portable_digests
from projects import use_packed_study

pytestmark = pytest.mark.slurm
ACCOUNTING = True


def record_jobs(project, launcher):
    """Return one job of each rule, after the launcher has ended."""
    jobs_by_rule = {}

    def has_ended():
        for job in project.jobs():
            rule = job.comment.partition("_wildcards")[0]
            jobs_by_rule[rule] = job
        return launcher.poll() is not None

    wait("the end of the study", has_ended, TIMEOUT, every=1)
    return jobs_by_rule


def test_study_on_a_cluster_equals_the_study_without_a_cluster(
    create_project, cluster, packed_study
):
    project = create_project(use_packed_study, account="lab")
    launcher = project.launch("tables")
    jobs_by_rule = record_jobs(project, launcher)
    assert launcher.returncode == 0, project.launcher_output[-8000:]
    assert not project.jobs()
    resources = {rule: (job.partition, "gpu:1" in job.gres) for rule, job in jobs_by_rule.items()}
    assert resources == {
        "rule_train_ensemble": ("gpu", True),
        "rule_measure_ensemble": ("cpu", False),
        "rule_treat_ensemble": ("gpu", True),
    }
    states = cluster.output("sacct", "-n", "-P", "-X", "-A", "lab", "-o", "State").splitlines()
    assert states == ["COMPLETED"] * 9
    without_cluster = packed_study.reproducible_digests()
    expected = {name: digest for name, digest in without_cluster.items() if "figures" not in name}
    assert portable_digests(project.root / "results/tiny") == expected
