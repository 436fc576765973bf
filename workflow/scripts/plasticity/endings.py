"""Say at the end of a run what it made and what to do next, or what failed and what to do."""

import csv
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

WIDTH = 100
SENTENCES = 3
SHOWN_LINES = 8

START = re.compile(r" INFO python \S+, host ")  # a log has this line at the start of each attempt
MISTAKE = re.compile(r" ERROR |^(FAILED|ERROR|E  ) ")  # the last two are those of pytest
BUG = "This is a bug in the code"
STOPPED = re.compile(r" WARNING stopped by SIG(TERM|INT)|DUE TO TIME LIMIT|CANCELLED AT")
OUT_OF_MEMORY = re.compile(
    r"out of memory|out-of-memory|oom.?kill|MemoryError|cannot allocate memory", re.IGNORECASE
)


def success(results: Path, study: str) -> str:
    """Say where the report of a finished study is, what it says, and what to do next.

    Args:
        results: folder of the study.
        study: how the user names the study; empty for the default study.
    """
    option = f" STUDY={study}" if study else ""
    sentences = main_sentences(results / "tables" / "statements.csv")
    lines = [
        f"The study is complete. Its report: {results / 'report.html'}",
        *(textwrap.fill(f"- {text}", WIDTH, subsequent_indent="  ") for text in sentences),
        "Next:",
        f"  make explore{option}   # choose setting, arms and measures in a browser",
        f"  make why{option}       # after a change: list the jobs that would run, and why",
    ]
    return "\n".join(lines)


def main_sentences(statements: Path) -> list[str]:
    """Read the most important sentences of the table of statements."""
    with statements.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"]]
    rows.sort(key=lambda row: float(row["rank"]))
    return [row["statement"] for row in rows[:SENTENCES]]


def failure(job: str, log: Path, slurm_log: Path | None = None) -> str:
    """Say how a failed job ended, and what to do.

    Args:
        job: its rule and wildcards.
        log: its log file, which may be missing.
        slurm_log: what Slurm printed, if it ran there.
    """
    own, printed = _last_attempt(log), _read_lines(slurm_log)
    advice = advise([*printed, *own])
    if own:
        head, lines = f"{job} failed. {log} ends:", own
    elif printed:
        head, lines = f"{job} failed, and has no log. {slurm_log} ends:", printed
    else:
        head, lines = f"{job} failed, and has no log.", []
        advice = (
            "It ended before it opened its log. Read what it printed, above `Error in rule "
            f"{job.partition(' ')[0]}`."
        )
    shown = [f"    {line}" for line in lines[-SHOWN_LINES:]]
    return "\n".join([head, *shown, f"  What to do: {advice}"])


def advise(lines: Sequence[str]) -> str:
    """Say what to do after a job has failed.

    Args:
        lines: what the job and Slurm printed in its last attempt.
    """
    if any(OUT_OF_MEMORY.search(line) for line in lines):
        return f"The memory was not enough. {_LESS_MEMORY}"
    if any(BUG in line for line in lines):
        return "Report the traceback in the log as a bug. Other jobs do not depend on it."
    if any(STOPPED.search(line) for line in lines):
        return (
            "It was stopped, by you or by a time limit. Run the same command again: it continues "
            "after its last finished task."
        )
    if any(MISTAKE.search(line) for line in lines):
        return "Correct what the message says, and run the same command again."
    return f"It was killed without a message, most often because memory ran out. {_LESS_MEMORY}"


_LESS_MEMORY = (
    'Run fewer jobs at once (make run ARGS="--cores 1") or lower seeds_per_job; finished tasks are '
    "not computed again."
)


def _last_attempt(log: Path) -> list[str]:
    """Read the lines that the last attempt of a job wrote to its log."""
    lines = _read_lines(log)
    starts = [number for number, line in enumerate(lines) if START.search(line)]
    return lines[starts[-1] :] if starts else lines


def _read_lines(path: Path | None) -> list[str]:
    """Read the lines of a file; none if it is missing."""
    if path is None or not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
