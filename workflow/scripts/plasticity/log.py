"""Logging of jobs: lines in a log file, and now and then one on the terminal."""

import functools
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("plasticity")
Item = TypeVar("Item")
SECONDS_BETWEEN_PRINTS = 30  # of the progress of a job on the terminal


def open_log(path: Path | None) -> None:
    """Start logging, and log the Python version, the host and the Slurm job.

    Host and job go to the log only. A result must not depend on where it was computed.

    Args:
        path: of the log file; lines are appended to those of earlier attempts. None: log to the
            terminal.
    """
    handler: logging.Handler = logging.StreamHandler()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[handler],
        force=True,
    )
    logging.captureWarnings(capture=True)
    # on a full disk, lose the line without printing a traceback for it
    logging.raiseExceptions = False
    log.info("%s", " ".join(sys.argv[:1]))
    log.info(
        "python %s, host %s, slurm job %s on node %s",
        platform.python_version(),
        platform.node(),
        os.environ.get("SLURM_JOB_ID", "none"),
        os.environ.get("SLURMD_NODENAME", "none"),
    )


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time that it is given, because runs and tasks repeat it."""
    log.warning("%s", message)


def progress(label: str, unit: str) -> Callable[[Collection[Item]], Iterator[Item]]:
    """Create a wrapper for a long loop, which reports its progress in lines.

    The log has a line at every tenth of the loop. A terminal also has one, at most every half
    minute, because several jobs print to it at once. Bars would overwrite each other.

    Args:
        label: name of the loop, such as ``"train digits_labels_relu/none/0-4"``.
        unit: what one round does, such as ``"task"``.
    """

    def loop(items: Collection[Item]) -> Iterator[Item]:
        start = last_print = time.monotonic()
        logged_tenths = 0
        # the tasks of a resumed loop are counted from the first one
        skipped = items.start if isinstance(items, range) and items.step == 1 else 0
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            pace = describe_pace(unit, done, len(items), now - start)
            line = f"{label}: {unit} {skipped + done}/{skipped + len(items)}, {pace}"
            tenths = 10 * done // len(items)
            if tenths > logged_tenths:
                logged_tenths = tenths
                log.info("%s", line)
            if now - last_print > SECONDS_BETWEEN_PRINTS and _is_terminal_free():
                last_print = now
                print(line, file=sys.stderr)

    return loop


def _is_terminal_free() -> bool:
    """Return whether there is a terminal, and log lines do not go there."""
    handlers = logging.getLogger().handlers
    return sys.stderr.isatty() and any(isinstance(one, logging.FileHandler) for one in handlers)


def name_of_runs(folder: Path) -> str:
    """Name the runs whose results are in a folder: ``digits_labels_relu/none/0-4``."""
    return "/".join(folder.parts[-3:])


def describe_pace(unit: str, done: int, total: int, seconds: float) -> str:
    """Describe the pace of a loop and the time to its end: ``2.1 s/task, 1 min left``."""
    pace = seconds / done
    if done == total:
        return f"{pace:.3g} s/{unit}, {format_seconds(seconds)} in all"
    return f"{pace:.3g} s/{unit}, {format_seconds(pace * (total - done))} left"


def format_seconds(seconds: float) -> str:
    """Write a duration in the unit that is easy to read: s, min or h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
