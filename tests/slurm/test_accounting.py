"""A study on a real Slurm with accounting: where its jobs run, and that its results are those of a run without a cluster."""

import pytest
from cluster import wait
from on_cluster import lasting
from projects import pack

pytestmark = pytest.mark.slurm
ACCOUNTING = True


def test_a_study_on_a_cluster_equals_one_without_a_cluster(copied, cluster, packed):
    project = copied(pack, account="lab")
    running = project.launch("tables")
    seen = {}

    def ended():
        seen.update({job.comment.partition("_wildcards")[0]: job for job in project.jobs()})
        return running.poll() is not None

    wait("the end of the study", ended, 900, every=1)
    assert running.returncode == 0, project.said[-8000:]
    assert not project.jobs()
    assert {rule: (job.partition, "gpu:1" in job.gres) for rule, job in seen.items()} == {
        "rule_train_ensemble": ("gpu", True),
        "rule_measure_ensemble": ("cpu", False),
    }
    jobs = [
        line.split("|")
        for line in cluster.say(
            "sacct", "-n", "-P", "-X", "-A", "lab", "-o", "State,JobName"
        ).splitlines()
    ]
    assert {state for state, _ in jobs} == {"COMPLETED"}
    assert len(jobs) == 8
    without_cluster = packed.lasting()
    expected = {name: digest for name, digest in without_cluster.items() if "figures" not in name}
    assert lasting(project.root / "results/tiny") == expected
