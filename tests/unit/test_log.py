"""Progress is reported in lines with units, so that lines of several jobs can mix."""

import logging
import sys
from pathlib import Path

import pytest

from plasticity import log


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch, tmp_path, capsys):
    """Let stderr be a terminal, and the log a file."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stderr: True)
    root = logging.getLogger()
    handler = logging.FileHandler(tmp_path / "job.log")
    root.addHandler(handler)
    yield
    root.removeHandler(handler)
    handler.close()


def run(clock, items, seconds=2.1):
    """Run a loop whose rounds take some seconds, and return the items that it got."""
    got = []
    for item in log.progress("train row/none/0-4", "task")(items):
        clock.now += seconds
        got.append(item)
    return got


def test_log_has_a_line_with_units_at_every_tenth(clock, caplog):
    with caplog.at_level(logging.INFO):
        assert run(clock, range(40)) == list(range(40))
    assert len(caplog.messages) == 10
    assert caplog.messages[2] == "train row/none/0-4: task 12/40, 2.1 s/task, 59 s left"
    assert caplog.messages[-1] == "train row/none/0-4: task 40/40, 2.1 s/task, 84 s in all"


def test_resumed_loop_counts_from_the_first_task(clock, caplog):
    with caplog.at_level(logging.INFO):
        run(clock, range(30, 40))
    assert caplog.messages[0] == "train row/none/0-4: task 31/40, 2.1 s/task, 19 s left"


def test_terminal_has_a_line_every_half_minute_and_no_bar(clock, terminal, capsys):
    run(clock, range(40))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train row/none/0-4: task 15/40, 2.1 s/task, 53 s left"
    assert len(lines) == 2


def test_output_that_is_no_terminal_gets_no_progress(clock, capsys):
    run(clock, range(40))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (150, "2 min"), (8000, "2.2 h")]
)
def test_duration_has_a_unit_that_is_easy_to_read(seconds, text):
    assert log.format_seconds(seconds) == text


def test_runs_are_named_by_setting_method_and_seeds():
    assert log.name_of_runs(Path("results/digits/runs/row/none/0-4")) == "row/none/0-4"
