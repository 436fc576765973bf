"""Forked commands behave like new interpreters, and failed builds show their errors."""

import json
import os
import signal
import subprocess
import time

import pytest
from projects import wait_for

REPORT = """
import json, os, sys

state = {
    "argv": sys.argv,
    "folder": os.getcwd(),
    "path": sys.path[0],
    "variable": os.environ["VARIABLE"],
    "stdin": sys.stdin.read(),
}
print(json.dumps(state))
print("to stderr", file=sys.stderr)
"""
THREAD = """
import threading, time

def print_later():
    time.sleep(0.1)
    print("later")

threading.Thread(target=print_later).start()
"""
ENDS = {  # last lines of a script, and its exit status
    "last line": ("", 0),
    "exit status": ("sys.exit(3)", 3),
    "exit message": ("sys.exit('a message')", 1),
    "exception": ("raise ValueError('an exception')", 1),
    "unfinished thread": (THREAD, 0),
    "exit function": ("import atexit; atexit.register(print, 'at exit')", 0),
}
PRINT_PROJECT_MODULES = """
import sys

print(sorted(name for name in sys.modules if name.partition(".")[0] == "plasticity"))
"""
SLEEP = """
import os, pathlib, time

pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.parametrize("end", ENDS)
def test_forked_script_behaves_like_one_of_a_new_interpreter(
    project_without_results, tmp_path, end
):
    last_lines, status = ENDS[end]
    script = tmp_path / "script.py"
    script.write_text(f"{REPORT}{last_lines}\n")
    arguments = ["--option", "a value with spaces and ü"]
    forked, new = (
        project.run("python", script, *arguments, env={"VARIABLE": "a\nb"}, input="text")
        for project in (project_without_results, project_without_results.unforked)
    )
    assert forked.returncode == new.returncode == status
    lines = forked.stdout.splitlines()
    # tracebacks differ in lines that are sorted before these three
    assert sorted(lines)[-3:] == sorted(new.stdout.splitlines())[-3:]
    state = next(json.loads(line) for line in lines if line.startswith("{"))
    assert state["argv"][1:] == arguments
    assert state["folder"] == str(project_without_results.root)
    assert state["variable"] == "a\nb"
    assert state["stdin"] == "text"


def test_forked_module_and_line_of_code_behave_like_those_of_a_new_interpreter(
    project_without_results,
):
    code = "import sys; print(sys.flags.isolated, sys.argv)"
    for arguments in (["-m", "json.tool", "--help"], ["-c", code, "x"]):
        forked = project_without_results.run("python", *arguments)
        new = project_without_results.unforked.run("python", *arguments)
        assert forked.returncode == new.returncode
        assert forked.stdout == new.stdout


def test_fork_server_imports_no_module_of_the_project(project_without_results, tmp_path):
    """Otherwise commands would not see a changed module of a copy."""
    script = tmp_path / "script.py"
    script.write_text(PRINT_PROJECT_MODULES)
    assert project_without_results.run("python", script).stdout == "[]\n"


def wait_for_end(pid, seconds=30):
    """Wait until a process of any parent has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the command still runs")


def test_forked_command_ends_when_its_sender_is_killed(project_without_results, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SLEEP)
    sender = subprocess.Popen(["python", script], cwd=tmp_path, env=project_without_results.env)
    pid_file = tmp_path / "pid"
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", sender)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    wait_for_end(int(pid_file.read_text()))


def test_failed_build_shows_the_failed_job_and_the_end_of_its_log(built_copy):
    method = "workflow/scripts/plasticity/training/methods/l2.py"
    built_copy.append(method, "\nraise RuntimeError('broken here')\n")
    with pytest.raises(pytest.fail.Exception) as failure:
        built_copy.build()
    message = str(failure.value)
    assert (
        "train_ensemble digits_labels_relu l2 0 failed. "
        "results/tiny/logs/runs/digits_labels_relu/l2/0/train.log ends:"
    ) in message
    assert "broken here" in message
    assert "rule train_ensemble" not in message, "the message must not repeat the plan"
    assert "What to do: Report the traceback" in message
    assert len(message) < 2500


def test_failed_plan_shows_the_error_in_the_config(built_copy):
    built_copy.config(lambda config: config["seeds"].update(report=-2))
    with pytest.raises(pytest.fail.Exception, match=r"seeds\.report"):
        built_copy.plan()
