"""What a Slurm site must say, and which of its jobs are ours, with a Slurm that is played by a script."""

import asyncio
import os
import stat
from types import SimpleNamespace

import pytest

from plasticity import slurm as cluster
from plasticity.errors import StudyError

SAID = {"partition": "gpu", "account": "lab", "cpu_partition": "cpu"}


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    for name in cluster.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """``slurm(name, body)`` plays a command of Slurm's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def play(name, body):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return play


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    assert cluster.site(tmp_path) == {}
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text("partition: gpu\naccount: lab\n")
    assert cluster.site(tmp_path) == {"partition": "gpu", "account": "lab"}
    monkeypatch.setenv("PLASTICITY_PARTITION", "other")
    monkeypatch.setenv("PLASTICITY_CPU_PARTITION", "cpu")
    assert cluster.site(tmp_path) == {
        "partition": "other",
        "account": "lab",
        "cpu_partition": "cpu",
    }


@pytest.mark.parametrize(
    "text", ["partitoin: gpu", "partition: [a, b]", "- partition", "partition: 3"]
)
def test_a_mistake_in_the_file_is_a_sentence(tmp_path, text):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text(text)
    with pytest.raises(
        StudyError,
        match=r"slurm/site\.yaml holds .*: write partition, account, cpu_partition, each with a name",
    ):
        cluster.site(tmp_path)


def test_a_file_that_is_no_yaml_is_a_sentence(tmp_path):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text("partition: [")
    with pytest.raises(StudyError, match="no YAML"):
        cluster.site(tmp_path)


def test_jobs_without_a_gpu_go_to_their_partition_and_an_account_that_is_none_is_not_said():
    assert cluster.resources(SAID, gpu=True) == {"slurm_partition": "gpu", "slurm_account": "lab"}
    assert cluster.resources(SAID, gpu=False) == {"slurm_partition": "cpu", "slurm_account": "lab"}
    assert cluster.resources({"partition": "gpu", "account": "none"}, gpu=False) == {
        "slurm_partition": "gpu"
    }
    assert cluster.resources({}, gpu=True) == {}


def test_what_is_missing_is_named_with_where_to_write_it():
    assert cluster.missing(SAID) == ""
    assert cluster.missing({"partition": "gpu", "account": "none"}) == ""
    said = cluster.missing({"partition": "gpu"})
    assert (
        "the site's account: write 'account: NAME' to slurm/site.yaml, or export PLASTICITY_ACCOUNT=NAME"
        in said
    )
    assert "partition and account" in cluster.missing({})


def test_only_jobs_of_this_folder_and_of_our_name_that_have_not_ended_are_ours(tmp_path, slurm):
    rows = [
        f"1|plasticity_a|RUNNING|{tmp_path}|rule_train_ensemble",
        f"2|plasticity_a|PENDING|{tmp_path}|rule_x|with a bar",
        f"3|plasticity_a|COMPLETED|{tmp_path}|rule_y",
        "4|plasticity_a|RUNNING|/elsewhere|rule_z",
        f"5|another|RUNNING|{tmp_path}|rule_z",
    ]
    slurm("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    assert cluster.running(tmp_path) == [
        cluster.Job("1", "RUNNING", "rule_train_ensemble"),
        cluster.Job("2", "PENDING", "rule_x|with a bar"),
    ]


def test_a_job_that_is_ending_is_waited_for(tmp_path, slurm):
    ending, ended = (
        f"1|plasticity_a|COMPLETING|{tmp_path}|rule_x",
        f"1|plasticity_a|COMPLETED|{tmp_path}|rule_x",
    )
    slurm(
        "squeue",
        f"if mkdir {tmp_path}/asked 2>/dev/null; then echo '{ending}'; else mkdir {tmp_path}/twice; echo '{ended}'; fi",
    )
    assert cluster.running(tmp_path) == []
    assert (tmp_path / "twice").exists()


def test_a_job_that_never_ends_is_not_waited_for_without_end(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_END", 0.1)
    rows = [
        f"1|plasticity_a|COMPLETING|{tmp_path}|rule_x",
        f"2|plasticity_a|RUNNING|{tmp_path}|rule_y",
    ]
    slurm("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    assert cluster.running(tmp_path) == [cluster.Job("2", "RUNNING", "rule_y")]


def test_without_slurm_nothing_runs_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.running(tmp_path) == []


def test_a_slurm_that_does_not_answer_is_said(tmp_path, slurm):
    slurm("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        StudyError, match=r"cannot be asked .*Unable to contact slurm controller.*try again"
    ):
        cluster.running(tmp_path)


def test_a_start_is_refused_with_numbers_and_what_to_do():
    said = cluster.refusal([cluster.Job(str(number), "RUNNING", "") for number in range(12)])
    assert said.startswith("12 Slurm jobs of this folder still run")
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …" in said
    assert "make orphans ARGS=--cancel" in said


def test_jobs_are_cancelled_by_their_numbers(tmp_path, slurm):
    slurm("scancel", f'echo "$@" > {tmp_path}/told')
    cluster.cancel([cluster.Job("7", "RUNNING", ""), cluster.Job("9", "PENDING", "")])
    assert (tmp_path / "told").read_text() == "7 9\n"
    slurm("scancel", "echo no >&2; exit 1")
    with pytest.raises(StudyError, match=r"did not cancel \(no"):
        cluster.cancel([cluster.Job("7", "RUNNING", "")])


def test_a_preempted_job_has_failed_and_a_forgotten_one_has_ended():
    answers = [
        {"1": "RUNNING", "2": "RUNNING", "3": "PENDING"},
        None,
        {"1": "PREEMPTED", "3": "COMPLETED"},
        {},
    ]
    commands = []

    async def query_job_status(command, logger):
        commands.append(command)
        answer = answers.pop(0)
        return answer, None if answer is None else 0.1

    plugin = SimpleNamespace(query_job_status=query_job_status)
    cluster.see_every_end(plugin)

    def ask():
        return asyncio.run(plugin.query_job_status("squeue", None))

    assert ask() == ({"1": "RUNNING", "2": "RUNNING", "3": "PENDING"}, 0.1)
    assert ask() == (None, None), "Slurm does not answer: nothing is known of any job"
    assert ask() == ({"1": "FAILED", "2": "UNKNOWN", "3": "COMPLETED"}, 0.1)
    assert ask() == ({"1": "UNKNOWN", "2": "UNKNOWN", "3": "UNKNOWN"}, 0.1)
    assert commands == ["squeue"] * 4
