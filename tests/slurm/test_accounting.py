"""A study on a real Slurm with accounting gives the same results as without a cluster."""

import pytest
from cluster import wait
from on_cluster import lasting
from projects import pack

pytestmark = pytest.mark.slurm
ACCOUNTING = True


def test_a_study_on_a_cluster_equals_one_without_a_cluster(copied, cluster, packed):
    project = copied(pack, account="lab")
    launcher = project.launch("tables")
    jobs_by_rule = {}

    def has_ended():
        for job in project.jobs():
            rule = job.comment.partition("_wildcards")[0]
            jobs_by_rule[rule] = job
        return launcher.poll() is not None

    wait("the end of the study", has_ended, 900, every=1)
    assert launcher.returncode == 0, project.launcher_output[-8000:]
    assert not project.jobs()
    places = {rule: (job.partition, "gpu:1" in job.gres) for rule, job in jobs_by_rule.items()}
    assert places == {
        "rule_train_ensemble": ("gpu", True),
        "rule_measure_ensemble": ("cpu", False),
    }
    states = cluster.output("sacct", "-n", "-P", "-X", "-A", "lab", "-o", "State").splitlines()
    assert states == ["COMPLETED"] * 8
    without_cluster = packed.lasting()
    expected = {name: digest for name, digest in without_cluster.items() if "figures" not in name}
    assert lasting(project.root / "results/tiny") == expected
