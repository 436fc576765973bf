"""Settings of a Slurm site, and its unfinished jobs; scripts stand in for the commands of Slurm."""

import asyncio
import os
import stat
from types import SimpleNamespace

import pytest

from plasticity import slurm as cluster
from plasticity.errors import StudyError

SITE = {"partition": "gpu", "account": "lab", "cpu_partition": "cpu"}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in cluster.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """``slurm(name, body)`` writes a script in place of a command of Slurm."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def replace_command(name, body):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return replace_command


def test_file_of_the_working_directory_replaces_that_of_the_repository(tmp_path):
    for folder, text in (("repository", "partition: a\naccount: b\n"), ("here", "partition: c\n")):
        (tmp_path / folder / "slurm").mkdir(parents=True)
        (tmp_path / folder / "slurm/site.yaml").write_text(text)
    repository = tmp_path / "repository"
    assert cluster.read_site(tmp_path / "here", repository) == {"partition": "c"}
    assert cluster.read_site(tmp_path / "empty", repository) == {"partition": "a", "account": "b"}


def test_environment_variables_override_the_file(tmp_path, monkeypatch):
    assert cluster.read_site(tmp_path) == {}
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text("partition: gpu\naccount: lab\n")
    assert cluster.read_site(tmp_path) == {"partition": "gpu", "account": "lab"}
    monkeypatch.setenv("PLASTICITY_PARTITION", "other")
    monkeypatch.setenv("PLASTICITY_CPU_PARTITION", "cpu")
    assert cluster.read_site(tmp_path) == {
        "partition": "other",
        "account": "lab",
        "cpu_partition": "cpu",
    }


@pytest.mark.parametrize(
    "text", ["partitoin: gpu", "partition: [a, b]", "- partition", "partition: 3"]
)
def test_mistake_in_the_file_gives_one_sentence(tmp_path, text):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text(text)
    keys = "partition, account, cpu_partition, curvature"
    message = rf"slurm/site\.yaml holds .*: write {keys}, each with a name"
    with pytest.raises(StudyError, match=message):
        cluster.read_site(tmp_path)


@pytest.mark.parametrize(("value", "expected"), [("gpu", True), ("cpu", False), (None, False)])
def test_site_decides_whether_curvature_has_a_gpu(tmp_path, monkeypatch, value, expected):
    if value:
        monkeypatch.setenv("PLASTICITY_CURVATURE", value)
    assert cluster.measures_on_gpu(cluster.read_site(tmp_path)) == expected


def test_unknown_device_of_curvature_gives_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PLASTICITY_CURVATURE", "tpu")
    with pytest.raises(StudyError, match=r"curvature is 'tpu' in .*: write cpu or gpu"):
        cluster.read_site(tmp_path)


def test_file_that_is_not_yaml_gives_one_sentence(tmp_path):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/site.yaml").write_text("partition: [")
    with pytest.raises(StudyError, match="not valid YAML"):
        cluster.read_site(tmp_path)


def test_cpu_jobs_have_their_own_partition_and_account_none_is_left_out():
    assert cluster.resources(SITE, gpu=True) == {"slurm_partition": "gpu", "slurm_account": "lab"}
    assert cluster.resources(SITE, gpu=False) == {"slurm_partition": "cpu", "slurm_account": "lab"}
    assert cluster.resources({"partition": "gpu", "account": "none"}, gpu=False) == {
        "slurm_partition": "gpu"
    }
    assert cluster.resources({}, gpu=True) == {}


def test_missing_settings_are_named_with_where_to_write_them():
    assert cluster.missing_settings_message(SITE) == ""
    assert cluster.missing_settings_message({"partition": "gpu", "account": "none"}) == ""
    message = cluster.missing_settings_message({"partition": "gpu"})
    assert "the site's account: write 'account: NAME' to slurm/site.yaml, or export" in message
    assert "export PLASTICITY_ACCOUNT=NAME" in message
    assert "partition and account" in cluster.missing_settings_message({})


def test_unfinished_jobs_are_those_of_this_folder_with_our_prefix(tmp_path, slurm):
    rows = [
        f"1|plasticity_a|RUNNING|{tmp_path}|rule_train_ensemble",
        f"2|plasticity_a|PENDING|{tmp_path}|rule_x|with a bar",
        f"3|plasticity_a|COMPLETED|{tmp_path}|rule_y",
        "4|plasticity_a|RUNNING|/elsewhere|rule_z",
        f"5|another|RUNNING|{tmp_path}|rule_z",
    ]
    slurm("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    assert cluster.unfinished_jobs(tmp_path) == [
        cluster.Job("1", "RUNNING", "rule_train_ensemble"),
        cluster.Job("2", "PENDING", "rule_x|with a bar"),
    ]


def test_completing_job_is_waited_for(tmp_path, slurm):
    first = f"echo '1|plasticity_a|COMPLETING|{tmp_path}|rule_x'"
    second = f"echo '1|plasticity_a|COMPLETED|{tmp_path}|rule_x'"
    is_first = f"mkdir {tmp_path}/once 2>/dev/null"
    slurm("squeue", f"if {is_first}; then {first}; else mkdir {tmp_path}/twice; {second}; fi")
    assert cluster.unfinished_jobs(tmp_path) == []
    assert (tmp_path / "twice").exists()


def test_waiting_for_a_completing_job_has_a_limit(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_END", 0.1)
    rows = [
        f"1|plasticity_a|COMPLETING|{tmp_path}|rule_x",
        f"2|plasticity_a|RUNNING|{tmp_path}|rule_y",
    ]
    slurm("squeue", "cat <<'END'\n" + "\n".join(rows) + "\nEND")
    assert cluster.unfinished_jobs(tmp_path) == [cluster.Job("2", "RUNNING", "rule_y")]


def test_without_slurm_there_are_no_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.unfinished_jobs(tmp_path) == []


def test_slurm_that_does_not_answer_gives_one_sentence(tmp_path, slurm):
    slurm("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        StudyError, match=r"cannot be asked .*Unable to contact slurm controller.*try again"
    ):
        cluster.unfinished_jobs(tmp_path)


def test_message_on_unfinished_jobs_has_numbers_and_what_to_do():
    message = cluster.unfinished_jobs_message(
        [cluster.Job(str(number), "RUNNING", "") for number in range(12)]
    )
    assert message.startswith("12 Slurm jobs of this folder still run")
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …" in message
    assert "make orphans ARGS=--cancel" in message


def test_jobs_are_cancelled_by_number(tmp_path, slurm):
    slurm("scancel", f'echo "$@" > {tmp_path}/cancelled')
    cluster.cancel([cluster.Job("7", "RUNNING", ""), cluster.Job("9", "PENDING", "")])
    assert (tmp_path / "cancelled").read_text() == "7 9\n"
    slurm("scancel", "echo no >&2; exit 1")
    with pytest.raises(StudyError, match=r"did not cancel the jobs \(no\)"):
        cluster.cancel([cluster.Job("7", "RUNNING", "")])


def test_preempted_job_has_failed_and_unlisted_job_has_ended():
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
    cluster.recognize_every_end(plugin)

    def ask():
        return asyncio.run(plugin.query_job_status("squeue", None))

    assert ask() == ({"1": "RUNNING", "2": "RUNNING", "3": "PENDING"}, 0.1)
    assert ask() == (None, None), "Slurm did not answer, so no state is known"
    assert ask() == ({"1": "FAILED", "2": "UNKNOWN", "3": "COMPLETED"}, 0.1)
    assert ask() == ({"1": "UNKNOWN", "2": "UNKNOWN", "3": "UNKNOWN"}, 0.1)
    assert commands == ["squeue"] * 4
