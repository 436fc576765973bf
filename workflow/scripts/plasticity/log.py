"""Logging of jobs: lines in a log file, and a progress bar on a terminal."""

import functools
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger("plasticity")
Item = TypeVar("Item")


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


def progress(label: str) -> Callable[[Collection[Item]], Iterator[Item]]:
    """Create a wrapper for a long loop, which shows its progress.

    A terminal shows a bar. The log has a line at every tenth of the loop.

    Args:
        label: name of the loop, such as ``"train results/digits/…"``.
    """

    def loop(items: Collection[Item]) -> Iterator[Item]:
        start = time.monotonic()
        logged_tenths = 0
        is_terminal = sys.stderr.isatty()
        bar = tqdm(items, desc=label, leave=False, disable=not is_terminal, dynamic_ncols=True)
        for done, item in enumerate(bar, start=1):
            yield item
            tenths = 10 * done // len(items)
            if tenths > logged_tenths:
                logged_tenths = tenths
                seconds = time.monotonic() - start
                log.info("%s: %d of %d, %.0f s", label, done, len(items), seconds)

    return loop
