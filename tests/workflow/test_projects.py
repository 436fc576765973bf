"""What the tests of the workflow rest on: forked commands behave as new interpreters do, and a failure shows what failed."""

import json
import os
import signal
import subprocess
import time

import pytest

SCRIPT = """
import json, os, sys

print(json.dumps({"argv": sys.argv, "folder": os.getcwd(), "path": sys.path[0], "given": os.environ["GIVEN"], "stdin": sys.stdin.read()}))
print("to stderr", file=sys.stderr)
"""
ENDS = {
    "its end": ("", 0),
    "an exit status": ("sys.exit(3)", 3),
    "a message": ("sys.exit('a message')", 1),
    "an exception": ("raise ValueError('an exception')", 1),
    "an unfinished thread": (
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('later'))).start()",
        0,
    ),
    "an exit function": ("import atexit; atexit.register(print, 'at exit')", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_script_behaves_as_one_of_a_new_interpreter(unbuilt, tmp_path, end):
    line, status = ENDS[end]
    (tmp_path / "script.py").write_text(f"{SCRIPT}{line}\n")
    command = ["python", tmp_path / "script.py", "--option", "a value with spaces and ü"]
    forked, new = (
        project.run(*command, env={"GIVEN": "a\nb"}, input="text")
        for project in (unbuilt, unbuilt.unforked)
    )
    assert forked.returncode == new.returncode == status
    assert sorted(forked.stdout.splitlines())[-3:] == sorted(new.stdout.splitlines())[-3:]
    told = next(json.loads(line) for line in forked.stdout.splitlines() if line.startswith("{"))
    assert told["argv"][1:] == command[2:]
    assert told["folder"] == str(unbuilt.root)
    assert (told["given"], told["stdin"]) == ("a\nb", "text")


def test_a_forked_module_and_a_line_of_code_run_as_in_a_new_interpreter(unbuilt):
    for command in (
        ["-m", "json.tool", "--help"],
        ["-c", "import sys; print(sys.flags.isolated, sys.argv)", "x"],
    ):
        forked, new = (project.run("python", *command) for project in (unbuilt, unbuilt.unforked))
        assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)


def test_the_fork_server_has_imported_nothing_of_the_project(unbuilt, tmp_path):
    """A changed module of a copy would otherwise not be seen by its commands."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nprint(sorted(name for name in sys.modules if name.partition('.')[0] == 'plasticity'))\n"
    )
    assert unbuilt.run("python", script).stdout == "[]\n"


def test_a_forked_command_ends_with_its_sender(unbuilt, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    sender = subprocess.Popen(["python", script], cwd=tmp_path, env=unbuilt.env)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    pid = int((tmp_path / "pid").read_text())
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the command still runs")


def test_a_failed_build_shows_the_failed_job_and_the_end_of_its_log(copy):
    copy.append(
        "workflow/scripts/plasticity/training/methods/l2.py",
        "\nraise RuntimeError('broken here')\n",
    )
    with pytest.raises(pytest.fail.Exception) as failure:
        copy.build()
    message = str(failure.value)
    assert (
        "train_ensemble digits_labels_relu l2 0 failed. results/tiny/logs/runs/digits_labels_relu/l2/0/train.log ends:"
        in message
    )
    assert "broken here" in message
    assert "rule train_ensemble" not in message, "the plan is left out"
    assert len(message) < 2500


def test_a_failed_plan_shows_what_is_wrong(copy):
    copy.config(lambda config: config["seeds"].update(report=-2))
    with pytest.raises(pytest.fail.Exception, match=r"seeds\.report"):
        copy.plan()
