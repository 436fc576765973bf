"""A run that ends says what it made or what failed, and what to do next."""

import os
from pathlib import Path

import pytest
import yaml
from projects import failure_summary

from plasticity import endings, slurm

START = """\
2026-01-01 00:00:00,000 INFO workflow/scripts/train.py
2026-01-01 00:00:00,000 INFO python 3.11.7, host vm, slurm job none on node none
"""
STATEMENTS = """\
about,measure,setting,rank,statement
loss,,a,,a: the error is 0.8.
hypotheses,,,10,H1 is supported.
interventions,rank,,3,"Among copies, τ is -0.5."
outcomes,,,1,Plasticity is lost in 1 of 2 settings.
counterexamples,rank,,2,The rank falls.
"""
# By name: what the last attempt printed, and words of the advice
ENDINGS = {
    "mistake": ("… ERROR the exact spectrum takes too many rows", "Correct what the message says"),
    "check": ("E   AssertionError: ranks\nFAILED tests/results/test_results.py", "Correct what"),
    "bug": ("… ERROR This is a bug in the code, not a mistake\nTraceback", "as a bug"),
    "stop": ("… WARNING stopped by SIGTERM; finished tasks are saved", "It was stopped, by you or"),
    "memory": (
        "… ERROR x\ntorch.OutOfMemoryError: CUDA out of memory",
        "The memory was not enough",
    ),
    "kill": ("… INFO train a/none/0: task 3/5, 2 s/task", "It was killed without a message"),
}


@pytest.fixture
def results(tmp_path):
    """Results of a study with a table of statements."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/statements.csv").write_text(STATEMENTS, encoding="utf-8")
    return tmp_path


def test_finished_run_names_its_report_three_results_and_the_next_commands(results):
    lines = endings.success(results, "mnist").splitlines()
    assert lines[0] == f"The study is complete. Its report: {results / 'report.html'}"
    assert lines[1:4] == [
        "- Plasticity is lost in 1 of 2 settings.",
        "- The rank falls.",
        "- Among copies, τ is -0.5.",
    ]
    commands = "\n".join(lines[4:])
    assert "make explore STUDY=mnist " in commands
    assert "make why STUDY=mnist " in commands
    assert "STUDY" not in endings.success(results, "")


def test_sentences_that_are_not_on_the_first_page_are_not_printed(results):
    table = results / "tables/statements.csv"
    table.write_text("\n".join(STATEMENTS.splitlines()[:3]), encoding="utf-8")
    assert endings.main_sentences(table) == ["H1 is supported."]


@pytest.mark.parametrize("name", ENDINGS)
def test_failed_job_shows_its_rule_the_end_of_its_log_and_what_to_do(name, tmp_path):
    text, advice = ENDINGS[name]
    log = tmp_path / "train.log"
    log.write_text(f"{START}… ERROR of an earlier attempt, out of memory\n{START}{text}\n")
    message = endings.failure("train_ensemble a none 0", log)
    lines = message.splitlines()
    assert lines[0] == f"train_ensemble a none 0 failed. {log} ends:"
    assert [line.strip() for line in lines[-1 - len(text.splitlines()) : -1]] == text.splitlines()
    assert lines[-1].startswith("  What to do: ")
    assert advice in lines[-1]
    assert "earlier attempt" not in message
    assert failure_summary(f"…\n{message}") == message


def test_job_without_a_log_refers_to_what_it_printed(tmp_path):
    message = endings.failure("train_ensemble a none 0", tmp_path / "missing.log")
    assert message.startswith("train_ensemble a none 0 failed, and has no log.\n")
    assert "above `Error in rule train_ensemble`" in message


def test_job_that_slurm_ended_shows_what_slurm_printed(tmp_path):
    printed = tmp_path / "7.log"
    printed.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch\n")
    message = endings.failure("train_ensemble a none 0", tmp_path / "missing.log", printed)
    assert f"{printed} ends:\n    slurmstepd: error: Detected 1 oom_kill" in message
    assert "The memory was not enough" in message
    printed.write_text("slurmstepd: *** JOB 7 CANCELLED AT … DUE TO TIME LIMIT ***\n")
    log = tmp_path / "train.log"
    log.write_text(f"{START}… INFO task 3/5\n")
    message = endings.failure("train_ensemble a none 0", log, printed)
    assert message.startswith(f"train_ensemble a none 0 failed. {log} ends:")
    assert "It was stopped, by you or by a time limit" in message


def test_newest_log_of_slurm_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert slurm.log_of("train_ensemble", ["a", "none", "0-4"]) is None
    folder = slurm.LOGS / "rule_train_ensemble" / "a_none_0-4"
    folder.mkdir(parents=True)
    for number, age in ((9, 0), (10, 60)):
        (folder / f"{number}.log").write_text("")
        os.utime(folder / f"{number}.log", (age, age))
    assert slurm.log_of("train_ensemble", ["a", "none", "0-4"]) == folder / "10.log"


def test_folder_of_slurm_logs_is_that_of_the_profile():
    profile = yaml.safe_load((Path(__file__).parents[2] / "slurm" / "profile.yaml").read_text())
    assert profile["slurm-logdir"] == str(slurm.LOGS)
